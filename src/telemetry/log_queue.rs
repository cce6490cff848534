//! Lines on their way to standard output: whoever logs appends, and one thread writes.
//!
//! So a terminal or a pipe that nobody reads holds up that thread alone. If the queue is full, new lines are lost, counted, and
//! told in the log once half of it is free. `tracing-appender` bounds the lines and not their bytes, and cannot tell in the log
//! what was lost (tokio-rs/tracing#1941).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags, poll};

use crate::limits;

/// The queue. Writing to `&LogQueue` appends what is one write as a whole, and never waits.
#[derive(Debug)]
pub(super) struct LogQueue {
    state: Mutex<QueueState>,
    /// A line was appended.
    appended: Condvar,
    /// All lines are written.
    written: Condvar,
    lost: Counter,
}

#[derive(Debug, Default)]
struct QueueState {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// A line that has left the queue is being written.
    is_writing: bool,
    /// Lines lost since that was last told.
    lost_untold: u64,
}

impl QueueState {
    fn has_room(&self, line: &[u8]) -> bool {
        self.lines.len() < limits::LOG_LINES_MAX && self.bytes + line.len() <= limits::LOG_BYTES_MAX
    }

    fn is_half_free(&self) -> bool {
        self.lines.len() <= limits::LOG_LINES_MAX / 2 && self.bytes <= limits::LOG_BYTES_MAX / 2
    }
}

impl LogQueue {
    /// Starts the thread that writes to `output`. Lost lines are counted in `lost`, and told through `tell`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        output: File,
        lost: Counter,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let (state, appended, written) = (Mutex::default(), Condvar::new(), Condvar::new());
        let queue = Arc::new(Self { state, appended, written, lost });
        let writing = Arc::clone(&queue);
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || writing.write_lines(&output, &tell))?;
        Ok(queue)
    }

    fn write_lines(&self, output: &File, tell: &dyn Fn(u64)) {
        loop {
            let line = self.next();
            let written = write_whole(output, &line);
            if written.is_err() {
                self.lost.inc();
            }
            let mut state = self.state.lock();
            state.is_writing = false;
            state.lost_untold += u64::from(written.is_err());
            let is_told = written.is_ok() && state.lost_untold > 0 && state.is_half_free();
            let lost = if is_told { std::mem::take(&mut state.lost_untold) } else { 0 };
            if state.lines.is_empty() {
                self.written.notify_all();
            }
            drop(state);
            // It appends a line, for which the lock must be free.
            if lost > 0 {
                tell(lost);
            }
        }
    }

    /// Waits for the next line, and takes it out.
    fn next(&self) -> Box<[u8]> {
        let mut state = self.state.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.is_writing = true;
                return line;
            }
            self.appended.wait(&mut state);
        }
    }

    fn append(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.has_room(line) {
            state.bytes += line.len();
            state.lines.push_back(line.into());
            self.appended.notify_one();
        } else {
            state.lost_untold += 1;
            self.lost.inc();
        }
    }

    /// Waits until all lines are written, or for `at_most`.
    pub(super) fn flush(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        let mut state = self.state.lock();
        while (state.is_writing || !state.lines.is_empty())
            && !self.written.wait_until(&mut state, until).timed_out()
        {}
    }
}

impl io::Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all of a line, and waits for as long as that takes.
fn write_whole(mut output: &File, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match output.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => line = &line[length..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process that shares the terminal or the socket has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(output, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::fd::OwnedFd;
    use std::sync::mpsc;

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
    }

    /// A queue whose output nobody reads, filled until it loses lines. Returns how many it lost.
    fn overfilled(output: File, tell: impl Fn(u64) + Send + 'static) -> (Arc<LogQueue>, u64) {
        let queue = LogQueue::start(output, Counter::default(), tell).unwrap();
        for number in 0..3 * limits::LOG_LINES_MAX {
            let line = format!("{number:0100}\n");
            (&*queue).write_all(line.as_bytes()).unwrap();
        }
        let lost = queue.lost.get();
        assert!(lost > 0);
        (queue, lost)
    }

    #[test]
    fn lines_that_do_not_fit_are_lost_whole_and_told_when_there_is_room() {
        let (reader, writer) = pipe();
        let (told, telling) = mpsc::channel();
        let (queue, lost) = overfilled(writer, move |lines| told.send(lines).unwrap());
        assert!(telling.try_recv().is_err(), "nothing is told as long as nothing is read");
        queue.flush(Duration::from_millis(1));
        let kept = usize::try_from(3 * limits::LOG_LINES_MAX as u64 - lost).unwrap();
        let lines = BufReader::new(reader).lines().take(kept).map(Result::unwrap);
        let lines: Vec<_> = lines.collect();
        assert!(lines.iter().all(|line| line.len() == 100), "each is whole");
        assert!(lines.is_sorted_by(|line, next| line < next), "they are in order");
        assert_eq!(telling.recv_timeout(Duration::from_secs(20)).unwrap(), lost);
        queue.flush(Duration::from_secs(20));
        assert!(queue.state.lock().lines.is_empty());
        assert_eq!(queue.lost.get(), lost);
    }

    #[test]
    fn a_reader_that_is_gone_costs_the_lines_and_nothing_else() {
        let (reader, writer) = pipe();
        drop(reader);
        let queue = LogQueue::start(writer, Counter::default(), |_| {}).unwrap();
        for _ in 0..10 {
            (&*queue).write_all(b"line\n").unwrap();
        }
        queue.flush(Duration::from_secs(20));
        assert_eq!(queue.lost.get(), 10);
    }

    #[test]
    fn an_output_that_does_not_block_gets_every_line() {
        let (reader, writer) = pipe();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let queue = LogQueue::start(writer, Counter::default(), |_| {}).unwrap();
        // More than a pipe holds.
        for number in 0..2000 {
            (&*queue).write_all(format!("{number:0100}\n").as_bytes()).unwrap();
        }
        let mut lines = BufReader::new(reader).lines();
        for number in 0..2000 {
            assert_eq!(lines.next().unwrap().unwrap(), format!("{number:0100}"));
        }
        assert_eq!(queue.lost.get(), 0);
    }
}

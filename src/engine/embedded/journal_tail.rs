//! Repairs the end of the journal after a loss of power in the middle of a sync.
//!
//! The pages of a batch reach the disk in any order. The library cuts off a batch without its end by itself. A batch with
//! its end and without a page in its middle it takes for damage, and opens nothing. So the last batch is cut off here and
//! kept aside. Whether it had been acknowledged, and so must not be missing, its number tells (`acknowledged`).
//!
//! The journal is parsed by hand because the library offers no other way to tell the torn last batch, which every loss of
//! power may leave, from damage. Its format is fjall 3's (entries of a tag each, a batch from a start to an end), and the
//! version of fjall is pinned exactly.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Where the batch is kept, inside `DATA_DIR`.
const TORN: &str = "store.torn";

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

/// Of an item: type and compression, a byte each; keyspace, 8; length of the key, 2; of the value, 4, and as it is stored,
/// 4. Key and value follow.
const ITEM_HEAD: usize = 20;

/// Cuts the last batch off the newest journal below `store`, if there is one. Returns whether there was.
pub(super) fn cut_last_batch(directory: &Path, store: &Path) -> io::Result<bool> {
    let Some(journal) = newest_journal(store)? else { return Ok(false) };
    let mut file = OpenOptions::new().read(true).write(true).open(journal)?;
    let Some(start) = last_batch(&file)? else { return Ok(false) };
    file.seek(SeekFrom::Start(start))?;
    io::copy(&mut file, &mut File::create(directory.join(TORN))?)?;
    file.set_len(start)?;
    file.sync_all()?;
    Ok(true)
}

fn newest_journal(store: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(store)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".jnl")?.parse::<u64>().ok());
        newest = newest.max(number.map(|number| (number, path)));
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the last batch begins that has an end.
fn last_batch(file: &File) -> io::Result<Option<u64>> {
    let mut reader = BufReader::new(file);
    let (mut start, mut last) = (0, None);
    loop {
        let at = reader.stream_position()?;
        let mut tag = [0];
        if reader.read(&mut tag)? == 0 {
            return Ok(last);
        }
        let rest = match tag[0] {
            START => {
                start = at;
                12
            }
            ITEM => {
                let mut head = [0; ITEM_HEAD];
                if reader.read_exact(&mut head).is_err() {
                    return Ok(last);
                }
                let key = u16::from_le_bytes([head[10], head[11]]);
                let value = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
                i64::from(key) + i64::from(value)
            }
            END => {
                last = Some(start);
                12
            }
            CLEAR => 8,
            _ => return Ok(last),
        };
        reader.seek_relative(rest)?;
    }
}

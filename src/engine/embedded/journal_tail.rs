//! Repairs the end of the journal after a loss of power in the middle of a sync.
//!
//! The pages of a batch reach the disk in any order. The library cuts off a batch without its end by itself. A batch with
//! its end and without a page in its middle it takes for damage, and opens nothing. So such a batch is cut off here and
//! kept aside, if a loss of power can have torn it: with `fsync` only the last one, with `os` any, and all that follow.
//! Anything else is damage, and is left as it is. Whether what was cut off had been acknowledged, and so must not be
//! missing, its number tells (`acknowledged`).
//!
//! The journal is parsed by hand because the library offers no other way to tell the torn last batch, which every loss of
//! power may leave, from damage. Its format is fjall 3's (entries of a tag each, a batch from a start to an end with the
//! XXH3 of the entries between), and the version of fjall is pinned exactly.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::config::Durability;

/// Where the batches are kept, inside `DATA_DIR`.
const TORN: &str = "store.torn";

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

/// Of an item: type and compression, a byte each; keyspace, 8; length of the key, 2; of the value, 4, and as it is stored,
/// 4. Key and value follow.
const ITEM_HEAD: usize = 20;

/// The first batch with an end whose checksum is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TornBatch {
    start: u64,
    is_last: bool,
}

/// Cuts the torn end off the newest journal below `store`, if there is one. Returns whether there was.
pub(super) fn cut_torn_end(
    directory: &Path,
    store: &Path,
    durability: Durability,
) -> io::Result<bool> {
    let Some(journal) = newest_journal(store)? else { return Ok(false) };
    let mut file = OpenOptions::new().read(true).write(true).open(journal)?;
    let torn = first_torn_batch(&file)?;
    let Some(TornBatch { start, .. }) = torn.filter(|t| t.is_last || durability == Durability::Os)
    else {
        return Ok(false);
    };
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

/// Reads batches until the file ends, or something is no entry: that the library cuts off.
fn first_torn_batch(file: &File) -> io::Result<Option<TornBatch>> {
    let mut reader = BufReader::new(file);
    let (mut start, mut torn) = (0, None::<TornBatch>);
    let mut checksum = Xxh3::new();
    loop {
        let at = reader.stream_position()?;
        let mut tag = [0];
        if reader.read(&mut tag)? == 0 {
            return Ok(torn);
        }
        match tag[0] {
            START => {
                start = at;
                checksum.reset();
                reader.seek_relative(12)?;
            }
            ITEM => {
                let mut head = [0; ITEM_HEAD];
                if reader.read_exact(&mut head).is_err() {
                    return Ok(torn);
                }
                checksum.update(&tag);
                checksum.update(&head);
                let key = u16::from_le_bytes([head[10], head[11]]);
                let value = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
                hash(&mut reader, u64::from(key) + u64::from(value), &mut checksum)?;
            }
            CLEAR => {
                checksum.update(&tag);
                hash(&mut reader, 8, &mut checksum)?;
            }
            END => {
                // The checksum, and the bytes that say that it is all there.
                let mut end = [0; 12];
                if reader.read_exact(&mut end).is_err() {
                    return Ok(torn);
                }
                let is_whole = end[..8] == checksum.digest().to_le_bytes();
                torn = match torn {
                    Some(torn) => Some(TornBatch { is_last: false, ..torn }),
                    None => (!is_whole).then_some(TornBatch { start, is_last: true }),
                };
            }
            _ => return Ok(torn),
        }
    }
}

fn hash(reader: &mut impl io::Read, mut bytes: u64, checksum: &mut Xxh3) -> io::Result<()> {
    let mut chunk = [0; 8192];
    while bytes > 0 {
        let most = usize::try_from(bytes).unwrap_or(usize::MAX).min(chunk.len());
        let read = reader.read(&mut chunk[..most])?;
        if read == 0 {
            return Ok(());
        }
        checksum.update(&chunk[..read]);
        bytes -= read as u64;
    }
    Ok(())
}

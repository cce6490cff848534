//! A damaged store is refused, or it was not damaged where it matters: then everything acknowledged is there. It never
//! serves a part of it as if that were all.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use crate::kit::{Backend, Exit, Facts, HowToEnd, Hub, Site, dice, number, say, until};

/// What a store is made of: paths, below `DATA_DIR`.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What the process ends with: no restart will mend it (`EX_DATAERR` of sysexits.h).
const DATA_ERROR: i32 = 65;

/// Damages of a run.
const DAMAGES: u64 = 120;

#[derive(Debug, Clone, Copy)]
enum Kind {
    CutOff,
    TailZeroed,
    ByteFlipped,
    Removed,
}

/// One damage.
#[derive(Debug)]
struct Damage {
    kind: Kind,
    file: PathBuf,
    offset: u64,
    /// What the byte is changed by.
    mask: u8,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, file, offset, mask } = self;
        write!(f, "{kind:?} {} at {offset} (mask {mask:#04x})", file.display())
    }
}

impl Damage {
    fn random(dice: &mut StdRng, file: &Path, contents: &[u8]) -> Self {
        let kinds = [Kind::CutOff, Kind::TailZeroed, Kind::ByteFlipped, Kind::ByteFlipped];
        let kind = *kinds.choose(dice).unwrap();
        let offset = dice.random_range(0..written(contents).len().max(1)) as u64;
        Self { kind, file: file.to_owned(), offset, mask: dice.random_range(1..=255) }
    }

    fn removed(file: &Path) -> Self {
        Self { kind: Kind::Removed, file: file.to_owned(), offset: 0, mask: 0 }
    }

    fn apply(&self, data_dir: &Path) {
        let path = data_dir.join(&self.file);
        if matches!(self.kind, Kind::Removed) {
            return fs::remove_file(path).unwrap();
        }
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        match self.kind {
            Kind::CutOff => file.set_len(self.offset).unwrap(),
            Kind::TailZeroed => {
                file.set_len(self.offset).unwrap();
                file.set_len(length).unwrap();
            }
            Kind::ByteFlipped | Kind::Removed => self.flip(&file),
        }
    }

    fn flip(&self, file: &File) {
        let mut byte = [0];
        if file.read_at(&mut byte, self.offset).unwrap() == 1 {
            file.write_all_at(&[byte[0] ^ self.mask], self.offset).unwrap();
        }
    }
}

/// Every file there is, but the lock, which is always empty.
fn files(data_dir: &Path) -> Files {
    fn walk(root: &Path, directory: &Path, found: &mut Files) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.file_name().is_some_and(|name| name != "lock") {
                let contents = fs::read(&path).unwrap();
                found.insert(path.strip_prefix(root).unwrap().to_owned(), contents);
            }
        }
    }
    let mut found = Files::new();
    walk(data_dir, data_dir, &mut found);
    found
}

/// Puts the files back as they were, and takes away what has come since.
fn put_back(data_dir: &Path, before: &Files) {
    let now = files(data_dir);
    for path in now.keys().filter(|path| !before.contains_key(*path)) {
        fs::remove_file(data_dir.join(path)).unwrap();
    }
    for (path, contents) in before.iter().filter(|(path, is)| now.get(*path) != Some(is)) {
        let path = data_dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, written(contents)).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(contents.len() as u64).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_journal_is_refused_or_whole() {
    let site = Site::new();
    let mut facts = Facts::default();
    for life in 0..2 {
        let hub = site.start().await;
        let backend = Backend::connect(&hub).await;
        for duel in 1..=3 {
            facts.push(&backend, duel, 40, 300).await;
            facts.use_ticket(&hub, &backend, duel).await;
        }
        facts.close(&backend, 10 + life).await;
        hub.end(HowToEnd::Kill).await;
    }
    let cases = number("DUELHUB_DAMAGES", DAMAGES) * 2 / 3;
    damage("a_damaged_journal", &site, &facts, cases).await;
}

#[tokio::test]
async fn a_damaged_table_is_refused_or_whole() {
    let site = Site::new();
    let mut facts = Facts::default();
    let hub = site.start().await;
    let backend = Backend::connect(&hub).await;
    facts.push(&backend, 1, 200, 1500).await;
    facts.use_ticket(&hub, &backend, 1).await;
    facts.close(&backend, 10).await;
    // Little of it stays in the log, but it fills journals, until the first is not needed any more: then what was pushed
    // before is in tables alone.
    let first_journal = site.data_dir().join("store/0.jnl");
    until("the first journal is gone", || async {
        Facts::default().push(&backend, 99, 100, 60_000).await;
        !first_journal.exists()
    })
    .await;
    facts.push(&backend, 1, 20, 300).await;
    facts.push(&backend, 2, 20, 300).await;
    facts.close(&backend, 11).await;
    hub.end(HowToEnd::Kill).await;
    let cases = number("DUELHUB_DAMAGES", DAMAGES) / 3;
    damage("a_damaged_table", &site, &facts, cases).await;
}

/// Takes away each file in turn, then goes through `cases` other damages, of all files in turn.
async fn damage(test: &str, site: &Site, facts: &Facts, cases: u64) {
    let mut dice = dice(test);
    let data_dir = site.data_dir();
    let before = files(&data_dir);
    let mut damages: Vec<_> = before.keys().map(|file| Damage::removed(file)).collect();
    let in_turn = before.iter().cycle().take(usize::try_from(cases).unwrap());
    damages.extend(in_turn.map(|(file, contents)| Damage::random(&mut dice, file, contents)));
    let (mut refused, mut problems) = (0, Vec::new());
    for damage in &damages {
        put_back(&data_dir, &before);
        damage.apply(&data_dir);
        match start(site, facts).await {
            Ok(Started::Refused) => refused += 1,
            Ok(Started::Whole) => {}
            Err(problem) => problems.push(format!("{damage}: {problem}")),
        }
    }
    let (all, wrong) = (damages.len(), problems.len());
    say(&format!("{test}: {all} damages, {refused} refused, {wrong} problems"));
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
    put_back(&data_dir, &before);
    let whole = start(site, facts).await;
    assert!(matches!(whole, Ok(Started::Whole)), "put back as it was: {whole:?}");
}

#[derive(Debug)]
enum Started {
    /// It did not serve, and said why.
    Refused,
    /// It served, and nothing is missing.
    Whole,
}

/// Starts the hub, and holds it to what it says. If it refuses, it is started again, as the service manager would.
async fn start(site: &Site, facts: &Facts) -> Result<Started, String> {
    match site.try_start().await {
        Ok(hub) => serve(hub, facts).await,
        Err(exit) => {
            refused_well(&exit)?;
            match site.try_start().await {
                Ok(hub) => serve(hub, facts).await.map_err(|then| format!("{exit}\nthen {then}")),
                Err(again) => refused_well(&again).map(|()| Started::Refused),
            }
        }
    }
}

async fn serve(hub: Hub, facts: &Facts) -> Result<Started, String> {
    let held = facts.hold(&hub).await;
    let exit = hub.kill().await;
    match held {
        Ok(()) if exit.panicked() => Err(format!("it serves, and it panicked: {exit}")),
        Ok(()) => Ok(Started::Whole),
        Err(missing) => Err(format!("it serves, and something is missing: {missing}: {exit}")),
    }
}

fn refused_well(exit: &Exit) -> Result<(), String> {
    // The library may trip over what it reads, and say so on the standard error; what counts is how the hub ends.
    if exit.code != Some(DATA_ERROR) {
        return Err(format!("not refused in good order: {exit}"));
    }
    // What another version wrote is not damaged, as far as anybody can tell.
    let advice = if exit.output.contains("has format") { "version" } else { "duelhub store check" };
    let needed = ["DATA_DIR", "the store", advice];
    match needed.iter().find(|text| !exit.output.contains(*text)) {
        Some(text) => Err(format!("refused without a word of {text:?}: {exit}")),
        None => Ok(()),
    }
}

/// Without the zeros at the end: a journal is as long as it will be before it is written.
fn written(contents: &[u8]) -> &[u8] {
    const PAGE: [u8; 4096] = [0; 4096];
    let mut rest = contents;
    while let Some(before) = rest.strip_suffix(&PAGE) {
        rest = before;
    }
    let end = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &rest[..end]
}

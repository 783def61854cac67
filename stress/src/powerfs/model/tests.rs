//! What is synced stays, and everything else can be lost in every way that is promised.

use rand::SeedableRng as _;

use super::*;

/// So many cuts of each state: what can happen, happens in one of them.
const CUTS: u64 = 600;

/// What many cuts of one state leave.
fn cuts(disk: &Disk) -> Vec<Remains> {
    let cut = |seed| disk.remains(&mut StdRng::seed_from_u64(seed)).0;
    (0..CUTS).map(cut).collect()
}

fn disk(files: &[(&str, &[u8])]) -> (Disk, Vec<Ino>) {
    let mut disk = Disk::default();
    let mut inos = Vec::new();
    for (name, bytes) in files {
        let ino = disk.create(ROOT, name).unwrap();
        disk.write(ino, 0, bytes).unwrap();
        disk.sync_file(ino).unwrap();
        inos.push(ino);
    }
    disk.sync_dir(ROOT).unwrap();
    (disk, inos)
}

/// The different contents of a file that many cuts leave.
fn contents(disk: &Disk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let cuts = cuts(disk);
    let content = |remains: &Remains| remains.file(name).map(<[u8]>::to_vec);
    cuts.iter().map(content).collect()
}

fn paths(disk: &Disk) -> BTreeSet<String> {
    let cuts = cuts(disk);
    let paths = |remains: &Remains| remains.paths().collect::<Vec<_>>().join(" ");
    cuts.iter().map(paths).collect()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn what_is_synced_is_there_after_every_cut() {
    let (disk, _) = disk(&[("a", b"one"), ("b", &[7; 5_000])]);
    for remains in cuts(&disk) {
        assert_eq!(remains.file("a"), Some(&b"one"[..]));
        assert_eq!(remains.file("b"), Some(&[7; 5_000][..]));
        assert_eq!(remains.paths().collect::<Vec<_>>(), ["a", "b"]);
    }
}

#[test]
fn a_cut_is_a_function_of_the_disk_and_of_chance() {
    let (mut disk, inos) = disk(&[("a", b"one")]);
    disk.write(inos[0], 1, &[9; 2_000]).unwrap();
    disk.create(ROOT, "b").unwrap();
    for (seed, remains) in (0..).zip(cuts(&disk)) {
        let (again, _) = disk.remains(&mut StdRng::seed_from_u64(seed));
        assert_eq!(again, remains);
    }
}

#[test]
fn a_write_that_was_not_synced_is_kept_lost_or_torn() {
    let (mut disk, inos) = disk(&[("a", &[b'.'; 3_000])]);
    disk.write(inos[0], 100, &[b'x'; 2_000]).unwrap();
    assert_eq!(disk.read(inos[0], 99, 3).unwrap(), b".xx");
    let (mut kept, mut lost, mut torn, mut odd) = (0, 0, 0, 0);
    for content in contents(&disk, "a").into_iter().map(Option::unwrap) {
        assert_eq!(content.len(), 3_000);
        let (before, rest) = content.split_at(100);
        let (written, after) = rest.split_at(2_000);
        assert!(before.iter().chain(after).all(|byte| *byte == b'.'));
        let count = |of: u8| {
            written
                .iter()
                .map(|byte| usize::from(*byte == of))
                .sum::<usize>()
        };
        let there = count(b'x');
        assert_eq!(there + count(b'.'), 2_000);
        match there {
            0 => lost += 1,
            2_000 => kept += 1,
            _ => torn += 1,
        }
        let borders = (1..2_000).filter(|at| written[at - 1] != written[*at]);
        odd += borders.filter(|at| (at + 100) % SECTOR_BYTES != 0).count();
    }
    assert!(
        kept > 0 && lost > 0 && torn > 20 && odd > 20,
        "{kept} {lost} {torn} {odd}"
    );
    disk.sync_file(inos[0]).unwrap();
    assert_eq!(contents(&disk, "a").len(), 1);
}

#[test]
fn writes_are_lost_each_by_itself() {
    let (mut disk, inos) = disk(&[("a", b"....")]);
    for (at, byte) in (0..).zip(b"wxyz") {
        disk.write(inos[0], at, &[*byte]).unwrap();
    }
    let found = contents(&disk, "a");
    let found: BTreeSet<String> = found
        .into_iter()
        .map(|bytes| String::from_utf8(bytes.unwrap()).unwrap())
        .collect();
    // Every part of four writes.
    assert_eq!(found.len(), 16, "{found:?}");
}

#[test]
fn a_file_can_be_longer_without_the_bytes_and_a_cut_can_be_undone() {
    let (mut longer, inos) = disk(&[("a", b"0123456789")]);
    longer.write(inos[0], 10, &[b'x'; 100]).unwrap();
    let (mut as_before, mut zeros, mut noise, mut older) = (0, 0, 0, 0);
    for content in contents(&longer, "a").into_iter().map(Option::unwrap) {
        assert!(content.starts_with(b"0123456789") && content.len() <= 110);
        let added = &content[10..];
        if added.is_empty() {
            as_before += 1;
        } else if added.iter().all(|byte| *byte == 0) {
            zeros += 1;
        } else if added.iter().all(u8::is_ascii_digit) {
            older += 1;
        } else if added.iter().any(|byte| !b"x\0".contains(byte)) {
            noise += 1;
        }
    }
    assert!(
        as_before > 0 && zeros > 0 && noise > 0 && older > 0,
        "{as_before} {zeros} {noise} {older}"
    );

    let (mut shorter, inos) = disk(&[("a", b"0123456789")]);
    shorter.set_len(inos[0], 4).unwrap();
    let both = [Some(b"0123".to_vec()), Some(b"0123456789".to_vec())];
    assert_eq!(contents(&shorter, "a"), BTreeSet::from(both));
    shorter.sync_file(inos[0]).unwrap();
    assert_eq!(
        contents(&shorter, "a"),
        BTreeSet::from([Some(b"0123".to_vec())])
    );
}

#[test]
fn a_hole_reads_as_zeros() {
    let (mut disk, inos) = disk(&[("a", b"1")]);
    disk.write(inos[0], 3, b"4").unwrap();
    assert_eq!(disk.read(inos[0], 0, 99).unwrap(), b"1\0\x004");
    assert_eq!(disk.read(inos[0], 9, 99).unwrap(), b"");
    disk.sync_file(inos[0]).unwrap();
    assert_eq!(
        contents(&disk, "a"),
        BTreeSet::from([Some(b"1\0\x004".to_vec())])
    );
    assert_eq!(disk.write(inos[0], u64::MAX, b"x"), Err(Refusal::Invalid));
}

#[test]
fn a_sync_of_a_file_does_not_make_its_name_durable_nor_one_of_the_directory_its_bytes() {
    let (mut disk, _) = disk(&[]);
    let ino = disk.create(ROOT, "new").unwrap();
    disk.write(ino, 0, b"x").unwrap();
    disk.sync_file(ino).unwrap();
    assert_eq!(
        contents(&disk, "new"),
        BTreeSet::from([None, Some(b"x".to_vec())])
    );
    disk.sync_dir(ROOT).unwrap();
    assert_eq!(
        contents(&disk, "new"),
        BTreeSet::from([Some(b"x".to_vec())])
    );
    disk.write(ino, 0, b"y").unwrap();
    disk.sync_dir(ROOT).unwrap();
    assert_eq!(contents(&disk, "new").len(), 2);
}

#[test]
fn a_rename_is_atomic_and_the_names_of_a_directory_are_lost_each_by_itself() {
    let (mut disk, _) = disk(&[("old", b"1"), ("new", b"2")]);
    disk.rename(ROOT, "new", ROOT, "old").unwrap();
    let found = contents(&disk, "old");
    assert_eq!(
        found,
        BTreeSet::from([Some(b"1".to_vec()), Some(b"2".to_vec())])
    );
    assert_eq!(paths(&disk), set(&["old", "new old"]));
    disk.create(ROOT, "third").unwrap();
    // Both, one or none of the changes; the later one without the earlier one, too.
    assert_eq!(
        paths(&disk),
        set(&["old", "new old", "old third", "new old third"])
    );
    disk.unlink(ROOT, "old").unwrap();
    assert!(paths(&disk).contains("new"), "{:?}", paths(&disk));
    disk.sync_dir(ROOT).unwrap();
    assert_eq!(paths(&disk), set(&["third"]));
}

#[test]
fn a_directory_that_is_not_durable_takes_its_files_along() {
    let (mut disk, _) = disk(&[]);
    let dir = disk.make_dir(ROOT, "dir").unwrap();
    let file = disk.create(dir, "file").unwrap();
    disk.sync_file(file).unwrap();
    disk.sync_dir(dir).unwrap();
    assert_eq!(paths(&disk), set(&["", "dir/file"]));
    disk.sync_dir(ROOT).unwrap();
    assert_eq!(paths(&disk), set(&["dir/file"]));
}

#[test]
fn names_in_a_safe_directory_are_durable_at_once_and_files_with_two_names_stay_one() {
    let (mut disk, inos) = disk(&[("a", b"....")]);
    let safe = disk.make_dir(ROOT, "safe").unwrap();
    disk.sync_dir(ROOT).unwrap();
    disk.make_safe(safe).unwrap();
    disk.link(inos[0], safe, "b").unwrap();
    assert_eq!(disk.attributes(inos[0]).unwrap().names, 2);
    disk.write(inos[0], 0, b"xxxx").unwrap();
    for remains in cuts(&disk) {
        assert_eq!(remains.file("a"), remains.file("safe/b"));
        assert!(remains.is_same("a", "safe/b"));
        let again = Disk::with(&remains);
        assert_eq!(again.attributes(inos[0]).unwrap().names, 2);
    }
    disk.unlink(ROOT, "a").unwrap();
    assert_eq!(disk.attributes(inos[0]).unwrap().names, 1);
    assert_eq!(disk.read(inos[0], 0, 4).unwrap(), b"xxxx");
}

#[test]
fn losses_are_counted() {
    let (mut disk, inos) = disk(&[("a", b"1"), ("b", b"2")]);
    assert_eq!(
        disk.remains(&mut StdRng::seed_from_u64(1)).1,
        Losses::default()
    );
    disk.write(inos[0], 0, &[1; 700]).unwrap();
    disk.set_len(inos[0], 0).unwrap();
    disk.create(ROOT, "c").unwrap();
    disk.rename(ROOT, "c", ROOT, "d").unwrap();
    disk.unlink(ROOT, "b").unwrap();
    let mut sum = Losses::default();
    for seed in 0..CUTS {
        let losses = disk.remains(&mut StdRng::seed_from_u64(seed)).1;
        assert_eq!(losses.unsynced, 5);
        sum.add(losses);
    }
    for (name, count) in sum.named() {
        assert!(count > 0, "{name}: {sum:?}");
    }
}

#[test]
fn remains_survive_the_way_through_a_directory_and_a_disk() {
    let (mut disk, inos) = disk(&[("a", b"1"), ("b", b"2")]);
    let dir = disk.make_dir(ROOT, "dir").unwrap();
    let inner = disk.create(dir, "c").unwrap();
    disk.write(inner, 0, b"3").unwrap();
    disk.sync_file(inner).unwrap();
    disk.sync_dir(dir).unwrap();
    disk.link(inos[0], ROOT, "a2").unwrap();
    disk.sync_dir(ROOT).unwrap();
    let (remains, _) = disk.remains(&mut StdRng::seed_from_u64(3));
    let (again, _) = Disk::with(&remains).remains(&mut StdRng::seed_from_u64(4));
    assert_eq!(again, remains);
    let place = tempfile::tempdir().unwrap();
    remains.write(place.path()).unwrap();
    assert_eq!(fs::read(place.path().join("dir/c")).unwrap(), b"3");
    fs::write(place.path().join("a2"), "both").unwrap();
    assert_eq!(fs::read(place.path().join("a")).unwrap(), b"both");
    let mut read = Remains::default();
    read.read(place.path(), "all").unwrap();
    let paths: Vec<_> = read.paths().collect();
    assert_eq!(paths, ["all/a", "all/a2", "all/b", "all/dir/c"]);
    assert_eq!(read.file("all/b"), Some(&b"2"[..]));
    read.forget("all/b");
    assert_eq!(read.file("all/b"), None);
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let (mut disk, inos) = disk(&[("a", b"1")]);
    let dir = disk.make_dir(ROOT, "dir").unwrap();
    let inner = disk.create(dir, "file").unwrap();
    assert_eq!(disk.create(ROOT, "a"), Err(Refusal::Exists));
    assert_eq!(disk.make_dir(ROOT, "a"), Err(Refusal::Exists));
    assert_eq!(disk.link(inos[0], dir, "file"), Err(Refusal::Exists));
    assert_eq!(disk.link(dir, ROOT, "other"), Err(Refusal::IsADirectory));
    assert_eq!(disk.lookup(ROOT, "none"), Err(Refusal::NotFound));
    assert_eq!(disk.lookup(inner, "none"), Err(Refusal::NotADirectory));
    assert_eq!(disk.unlink(ROOT, "none"), Err(Refusal::NotFound));
    assert_eq!(disk.unlink(ROOT, "dir"), Err(Refusal::IsADirectory));
    assert_eq!(disk.remove_dir(ROOT, "a"), Err(Refusal::NotADirectory));
    assert_eq!(disk.remove_dir(ROOT, "dir"), Err(Refusal::NotEmpty));
    assert_eq!(
        disk.rename(ROOT, "a", dir, "a"),
        Err(Refusal::OtherDirectory)
    );
    assert_eq!(
        disk.rename(ROOT, "dir", ROOT, "b"),
        Err(Refusal::IsADirectory)
    );
    assert_eq!(
        disk.rename(ROOT, "a", ROOT, "dir"),
        Err(Refusal::IsADirectory)
    );
    assert_eq!(disk.rename(ROOT, "none", ROOT, "b"), Err(Refusal::NotFound));
    assert_eq!(disk.rename(ROOT, "a", ROOT, "a"), Ok(()));
    assert_eq!(disk.write(dir, 0, b"x"), Err(Refusal::IsADirectory));
    assert_eq!(disk.read(99, 0, 1), Err(Refusal::NotFound));
    assert_eq!(disk.sync_dir(inner), Err(Refusal::NotADirectory));
    assert_eq!(disk.sync_file(dir), Err(Refusal::IsADirectory));
    let names: Vec<String> = disk
        .list(ROOT)
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["a", "dir"]);
    disk.unlink(dir, "file").unwrap();
    assert_eq!(disk.remove_dir(ROOT, "dir"), Ok(()));
    assert!(disk.attributes(ROOT).unwrap().is_dir);
}

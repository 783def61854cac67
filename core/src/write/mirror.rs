//! A file of JSON lines that mirrors a store, such as the one that people commit to git.
//!
//! What the two had in common when the file was last exported, imported or synced is remembered in
//! the store, as the base of a three-way merge. Without it, a deletion could not be told from an
//! addition on the other side.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Seek as _, Write as _},
    path::{Component, Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use strand_lock::FileLock;

use crate::{
    env::share::adopt,
    error::{Error, Result},
    format::i_json::replace_lone_surrogates,
    issues::{
        issue::{Issue, digest},
        issues::Issues,
        jsonl::{on_one_line, write_jsonl},
        merge::{Fate, three_way},
        merge_fields::MergeConflict,
        merge_sides::{Base, Lines, read},
        timestamp::Timestamp,
        version::Version,
    },
    options::Options,
    wal::{manifest::MANIFEST, store_dir::MIRRORS},
    write::{
        backend::Backend,
        batch::Batch,
        conditions::CommitError,
        export::{Target, export, replace_atomically, target, write_to},
        import::{
            BATCH_BYTES, Existing, ImportError, ImportOptions, Imported, changed_at, failed,
            stays_deleted,
        },
        issue_log::IssueLog,
    },
};

/// How many mirrors are remembered: those that were used last.
const REMEMBERED_MAX: usize = 16;
/// How often a sync begins again because a process was faster.
pub(super) const ATTEMPTS: u32 = 100;

/// Replaces the file at `path` by the issues of the store in `dir`, as [`export`] does, unless it
/// has changed since this store last exported, imported or synced it. Returns the number of issues.
///
/// The store remembers what it wrote, for [`IssueLog::import_file`] and [`IssueLog::sync`]. If it
/// can't, since this process may not write to it, the file is not checked either. What is no file
/// is written into.
///
/// # Errors
/// [`ImportError::FileChanged`]: nothing was written; [`IssueLog::sync`] the file, or
/// [`overwrite_mirror`] it. Otherwise as [`export`], in [`ImportError::File`].
///
/// ```
/// use strand_core::{ImportError, Issue, IssueLog, Issues, Options, Timestamp};
/// use strand_core::{export_mirror, overwrite_mirror};
///
/// let now = Timestamp::now();
/// # let dir = tempfile::tempdir()?;
/// let (store, file) = (dir.path().join("store"), dir.path().join("issues.jsonl"));
/// std::fs::create_dir(&store)?;
/// let log = IssueLog::open(&store, Options::default())?;
/// log.create(Issue::new("bd-1", "Mend the fence"))?;
/// let issues = Issues::load(&store)?;
/// export_mirror(&store, &issues, &file)?;
/// std::fs::write(&file, "")?;
/// let refused = export_mirror(&store, &issues, &file);
/// assert!(matches!(refused, Err(ImportError::FileChanged { .. })));
/// assert_eq!(overwrite_mirror(&store, &issues, &file)?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn export_mirror(
    dir: impl AsRef<Path>,
    issues: &Issues,
    path: impl AsRef<Path>,
) -> Result<u64, ImportError> {
    export_to(dir.as_ref(), issues, path.as_ref(), false)
}

/// Like [`export_mirror`], whatever the file has. Example there.
///
/// # Errors
/// As [`export`], in [`ImportError::File`].
pub fn overwrite_mirror(
    dir: impl AsRef<Path>,
    issues: &Issues,
    path: impl AsRef<Path>,
) -> Result<u64, ImportError> {
    export_to(dir.as_ref(), issues, path.as_ref(), true)
}

fn export_to(dir: &Path, issues: &Issues, path: &Path, force: bool) -> Result<u64, ImportError> {
    let Some(mirror) = Mirror::of(dir, path)? else {
        return Ok(export(issues, path)?);
    };
    let exported = mirror.hold(Options::default().lock_timeout, || {
        if !force && !mirror.is_as_remembered()? {
            let mut now = Vec::new();
            write_jsonl(issues, &mut now)?;
            if fs::read(&mirror.file)? != now {
                let path = path.to_owned();
                return Err(ImportError::FileChanged { path });
            }
        }
        let exported = export(issues, path)?;
        mirror.remember(|base| write_jsonl(issues, base))?;
        Ok(exported)
    });
    match exported {
        Err(ImportError::File(error)) if is_denied(&error) => Ok(export(issues, path)?),
        exported => exported,
    }
}

/// Whether this process may not write to the store.
fn is_denied(error: &Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error, Error::Io { source, .. } | Error::Lock(strand_lock::LockError::Io { source, .. })
        if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem))
}

impl IssueLog {
    /// Imports a file as [`IssueLog::import`] does, and remembers it for the next
    /// [`export_mirror`], import or [`IssueLog::sync`].
    ///
    /// An issue that the file had when it was last exported, imported or synced, and that it lacks
    /// now, is deleted, unless the store has changed it since; see
    /// [`ImportOptions::keep_missing`].
    ///
    /// # Errors
    /// As [`IssueLog::import`].
    ///
    /// ```
    /// use strand_core::{ImportOptions, IssueLog, Options, Timestamp};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let (store, file) = (dir.path().join("store"), dir.path().join("issues.jsonl"));
    /// std::fs::create_dir(&store)?;
    /// let log = IssueLog::open(&store, Options::default())?;
    /// let line = |id: &str| format!("{{\"id\":\"{id}\",\"title\":\"Mend\"}}\n");
    /// let options = ImportOptions::new(Timestamp::now());
    /// std::fs::write(&file, line("bd-1") + &line("bd-2"))?;
    /// assert_eq!(log.import_file(&file, options)?.added, 2);
    /// std::fs::write(&file, line("bd-1"))?;
    /// assert_eq!(log.import_file(&file, options)?.deleted, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn import_file(
        &self,
        path: impl AsRef<Path>,
        options: ImportOptions,
    ) -> Result<Imported, ImportError> {
        let path = path.as_ref();
        let mut file = BufReader::new(File::open(path).map_err(Error::io("open", path))?);
        let Some(mirror) = Mirror::of(self.dir(), path)? else {
            return self.import(&mut file, options);
        };
        mirror.hold(self.lock_timeout(), || {
            let known = mirror.base()?.unwrap_or_default();
            let imported = self.import_since(&known.issues, &mut file, options)?;
            self.make_durable(&imported)?;
            mirror.remember(|base| {
                file.rewind()?;
                io::copy(&mut file, base).map(drop)
            })?;
            Ok(imported)
        })
    }

    /// Makes the store and a file equal: imports what the file changed since they were last equal,
    /// and exports what the store changed, with [`merge`](crate::merge)'s rules. Deletions count on
    /// both sides. A file that does not exist is written.
    ///
    /// Where both changed the same in different ways, `options` say what counts: by default the
    /// file; with [`ImportOptions::keep_existing`] the store; with [`ImportOptions::newer`] the
    /// later `updated_at`, and a change before a deletion in the file; with
    /// [`ImportOptions::refuse_existing`] it is an error. If both have given one id to different
    /// issues, the later one gets a new id.
    ///
    /// All changes of the store are written under the condition that nobody has changed the issue
    /// meanwhile; else the sync begins again. If the process is killed, sync again. Two syncs of
    /// one file wait for each other.
    ///
    /// An issue that is missing in the store without having been deleted there within
    /// [`Options::tombstone_ms`], say after a repair, comes back from the file.
    ///
    /// # Errors
    /// [`ImportError::Conflicts`], [`ImportError::FileEmpty`], [`Error::BadLine`] in
    /// [`ImportError::Log`]: nothing was changed. Otherwise as [`IssueLog::import`].
    ///
    /// ```
    /// use strand_core::{ImportOptions, Issue, IssueLog, Issues, Options, Timestamp};
    ///
    /// let now = Timestamp::now();
    /// # let dir = tempfile::tempdir()?;
    /// let (store, file) = (dir.path().join("store"), dir.path().join("issues.jsonl"));
    /// std::fs::create_dir(&store)?;
    /// let log = IssueLog::open(&store, Options::default())?;
    /// log.create(Issue::new("bd-1", "Mend the fence"))?;
    /// let options = ImportOptions::new(now).refuse_existing();
    /// assert_eq!(log.sync(&file, options)?.exported, 1);
    ///
    /// let other = "{\"id\":\"bd-2\",\"title\":\"Buy wire\"}\n";
    /// let text = std::fs::read_to_string(&file)? + other;
    /// std::fs::write(&file, text)?; // By git, say.
    /// log.create(Issue::new("bd-3", "Paint it"))?;
    /// let synced = log.sync(&file, options)?;
    /// assert_eq!((synced.added, synced.exported), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync(
        &self,
        path: impl AsRef<Path>,
        options: ImportOptions,
    ) -> Result<Imported, ImportError> {
        let path = path.as_ref();
        let Some(mirror) = Mirror::of(self.dir(), path)? else {
            let no_file = io::Error::other("only a file can be synced");
            return Err(Error::io("sync", path)(no_file).into());
        };
        mirror.hold(self.lock_timeout(), || {
            for _ in 0..ATTEMPTS {
                if let Some(synced) = self.sync_once(&mirror, options)? {
                    return Ok(synced);
                }
            }
            let path = path.to_owned();
            Err(ImportError::FileChanged { path })
        })
    }

    /// `None` if another process has changed the file or an issue meanwhile.
    fn sync_once(
        &self,
        mirror: &Mirror,
        options: ImportOptions,
    ) -> Result<Option<Imported>, ImportError> {
        let mut done = Imported::default();
        let base = mirror.base()?;
        let is_first = base.is_none();
        let mut base = base.unwrap_or_default();
        let before = mirror.text()?;
        let mut text = before.clone().unwrap_or_default();
        if options.replace_surrogates {
            done.surrogates = replace_lone_surrogates(&mut text);
        }
        let file = match &before {
            Some(_) => read(&mirror.file, &text).map_err(bad_line)?,
            // It is to be written anew.
            None => base.issues.clone(),
        };
        done.lines = file.len() as u64;
        if file.is_empty() && !base.issues.is_empty() {
            let path = mirror.file.clone();
            return Err(ImportError::FileEmpty { path });
        }
        let store = self.with_issues(|issues| Store::of(issues, &base, &file, is_first))?;
        base.issues.retain(|id, _| !store.lost.contains(id));
        let merged = three_way(base, store.lines(), file.clone());
        done.renamed = merged.renamed;
        let result = store.decide_all(merged.issues, &file, options.existing, &mut done.decided);
        if options.existing == Existing::Refuse && !done.decided.is_empty() {
            let conflicts = done.decided;
            return Err(ImportError::Conflicts { conflicts });
        }
        if !apply(self, LIMITS, &store.issues, &result, options.ts, &mut done)? {
            return Ok(None);
        }
        self.make_durable(&done)?;
        let is_changed = |id: &String| file.get(id) != result.get(id);
        let removed = file.keys().filter(|id| !result.contains_key(*id));
        done.exported =
            (result.keys().filter(|id| is_changed(id)).count() + removed.count()) as u64;
        let mut after = Vec::with_capacity(text.len());
        for issue in result.values() {
            after.extend_from_slice(on_one_line(issue.as_json()).as_bytes());
            after.push(b'\n');
        }
        if before.as_deref() != Some(after.as_slice()) {
            if mirror.text()? != before {
                return Ok(None);
            }
            if before.is_none() {
                done.exported = result.len() as u64;
            }
            write_to(&mirror.file, |file| file.write_all(&after))?;
        }
        mirror.remember(|base| base.write_all(&after))?;
        Ok(Some(done))
    }

    /// What is remembered must not outlive what it describes.
    pub(super) fn make_durable(&self, imported: &Imported) -> Result<(), ImportError> {
        let Some(seq) = imported.last_seq else {
            return Ok(());
        };
        let synced = self.log().sync_to(seq);
        synced.map_err(|source| failed(source, imported))
    }
}

/// How much one record changes at most.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) bytes: usize,
    pub(super) issues: usize,
}

/// Those of a directory.
const LIMITS: Limits = Limits {
    bytes: BATCH_BYTES,
    issues: usize::MAX,
};

/// Changes a store, which has the issues `has`, so that it has others. False if another process was
/// faster.
pub(super) fn apply(
    to: &dyn Backend,
    limits: Limits,
    has: &BTreeMap<String, (Issue, Version)>,
    result: &Lines,
    ts: Timestamp,
    done: &mut Imported,
) -> Result<bool, ImportError> {
    let mut batches: Vec<(Batch, usize, usize)> = Vec::new();
    let mut add = |bytes: usize, step: &dyn Fn(Batch) -> Batch| {
        let is_full = |(_, used, issues): &(Batch, usize, usize)| {
            used + bytes > limits.bytes || *issues >= limits.issues
        };
        if batches.last().is_none_or(is_full) {
            batches.push((Batch::at(ts), 0, 0));
        }
        if let Some((batch, used, issues)) = batches.last_mut() {
            *batch = step(std::mem::replace(batch, Batch::at(ts)));
            *used += bytes;
            *issues += 1;
        }
    };
    let mut planned = Imported::default();
    for (id, issue) in result {
        let bytes = issue.as_json().len() + 64; // The event around it.
        match has.get(id) {
            Some((old, _)) if old == issue => planned.unchanged += 1,
            Some((_, version)) => {
                checked(issue)?;
                planned.replaced += 1;
                add(bytes, &|batch| batch.update_if(issue.clone(), *version));
            }
            None => {
                checked(issue)?;
                planned.added += 1;
                add(bytes, &|batch| batch.create(issue.clone()));
            }
        }
    }
    for (id, (_, version)) in has.iter().filter(|(id, _)| !result.contains_key(*id)) {
        planned.deleted += 1;
        add(id.len() + 64, &|batch| batch.delete_if(id, *version));
    }
    for (batch, ..) in batches {
        match to.commit(&batch) {
            Ok(receipt) => done.last_seq = Some(receipt.seq),
            Err(CommitError::Conflict(_)) => return Ok(false),
            Err(error @ (CommitError::KeyReused { .. } | CommitError::Make(_))) => {
                unreachable!("it has neither key nor closure: {error}")
            }
            Err(CommitError::Log(source)) => return Err(failed(source, done)),
        }
    }
    done.added = planned.added;
    done.replaced = planned.replaced;
    done.unchanged = planned.unchanged;
    done.deleted = planned.deleted;
    Ok(true)
}

/// Refuses an issue before anything is written.
fn checked(issue: &Issue) -> Result<(), ImportError> {
    let valid = issue.validate();
    valid.map_err(|error| Error::from(error).into())
}

fn bad_line(error: Error) -> ImportError {
    match error {
        Error::BadLine { line, reason, .. } => ImportError::BadLines {
            count: 1,
            first: vec![(line, reason)],
        },
        error => error.into(),
    }
}

/// What a sync needs to know of the store.
pub(super) struct Store {
    pub(super) issues: BTreeMap<String, (Issue, Version)>,
    /// Issues of the file or the base that are deleted here: whether after the file's last change.
    deleted: BTreeMap<String, bool>,
    /// Issues of the base that are neither here nor deleted.
    pub(super) lost: Vec<String>,
    /// Whether the file was never exported, imported or synced.
    is_first: bool,
}

impl Store {
    pub(super) fn of(issues: &Issues, base: &Base, theirs: &Lines, is_first: bool) -> Self {
        let with_version = |(id, issue): (&str, &Issue)| {
            let version = issues.version(id)?;
            Some((id.to_owned(), (issue.clone(), version)))
        };
        let missing = |id: &&String| issues.get(id).is_none();
        let deleted = base.issues.keys().chain(theirs.keys()).filter(missing);
        let deleted = deleted.filter_map(|id| {
            issues.deleted_at(id)?;
            let is_later = theirs
                .get(id)
                .is_none_or(|issue| stays_deleted(issues, id, issue));
            Some((id.clone(), is_later))
        });
        let deleted: BTreeMap<String, bool> = deleted.collect();
        let lost = base.issues.keys().filter(missing);
        Self {
            issues: issues.iter().filter_map(with_version).collect(),
            lost: lost
                .filter(|id| !deleted.contains_key(*id))
                .cloned()
                .collect(),
            deleted,
            is_first,
        }
    }

    /// The issues that the store and the file are to have. Adds to `decided` where one side counts.
    pub(super) fn decide_all(
        &self,
        merged: Vec<(String, Fate)>,
        file: &Lines,
        existing: Existing,
        decided: &mut Vec<MergeConflict>,
    ) -> Lines {
        let issues = merged.into_iter().filter_map(|(id, fate)| {
            let issue = self.decide(&id, fate, file, existing, decided)?;
            Some((id, issue))
        });
        issues.collect()
    }

    /// The issue that the store and the file are to have. Adds to `decided` where one side counts.
    fn decide(
        &self,
        id: &str,
        fate: Fate,
        file: &Lines,
        existing: Existing,
        decided: &mut Vec<MergeConflict>,
    ) -> Option<Issue> {
        let deleted_since = self.deleted.get(id) == Some(&true);
        let (ours, theirs) = match fate {
            Fate::Deleted => return None,
            // Without a base, only the times tell.
            Fate::Merged(issue) => {
                return Some(issue).filter(|_| !(self.is_first && deleted_since));
            }
            Fate::Conflict {
                ours,
                theirs,
                conflicts,
            } => {
                decided.extend(conflicts);
                (ours, theirs)
            }
        };
        let file_counts = match existing {
            Existing::Replace => true,
            Existing::Keep | Existing::Refuse => false,
            // The two lines have one time, the later, by now. A deletion in the file has none.
            Existing::Newer => match (self.issues.get(id), file.get(id)) {
                (Some((old, _)), Some(line)) => changed_at(line) > changed_at(old),
                (Some(_), None) => false,
                (None, _) => !deleted_since,
            },
        };
        if file_counts { theirs } else { ours }
    }

    pub(super) fn lines(&self) -> Lines {
        let issues = self.issues.iter();
        issues
            .map(|(id, (issue, _))| (id.clone(), issue.clone()))
            .collect()
    }
}

/// A file that mirrors a store, and what is remembered of it.
pub(super) struct Mirror {
    store: PathBuf,
    /// The file, or the name of a store.
    pub(super) file: PathBuf,
    pub(super) base: PathBuf,
}

impl Mirror {
    /// What is remembered of another store.
    pub(super) fn of_store(store: &Path, name: &str) -> Self {
        let key = digest(&["store", name]);
        Self {
            store: store.to_owned(),
            base: store.join(MIRRORS).join(format!("{key:016x}.jsonl")),
            file: name.into(),
        }
    }

    /// `None` if there is no file at `path`, but a device, say.
    fn of(store: &Path, path: &Path) -> Result<Option<Self>> {
        let Target::File(file) = target(path)? else {
            return Ok(None);
        };
        let dir = match file.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let canonical = |dir: &Path| dir.canonicalize().map_err(Error::io("find", dir));
        let name = file.file_name().unwrap_or(OsStr::new(""));
        let relative = relative(&canonical(store)?, &canonical(dir)?.join(name));
        // The two may be moved together.
        let key = digest(&[&relative.to_string_lossy()]);
        Ok(Some(Self {
            store: store.to_owned(),
            base: store.join(MIRRORS).join(format!("{key:016x}.jsonl")),
            file,
        }))
    }

    /// Acts while no other process uses the mirrors of the store.
    pub(super) fn hold<T>(
        &self,
        timeout: Duration,
        act: impl FnOnce() -> Result<T, ImportError>,
    ) -> Result<T, ImportError> {
        let dir = self.store.join(MIRRORS);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made.map_err(Error::io("create", &dir))?;
                if let (Ok(dir), Ok(store)) = (File::open(&dir), self.store.metadata()) {
                    adopt(&dir, &store);
                }
            }
        }
        let lock = FileLock::open(dir.join("lock")).map_err(Error::from)?;
        self.share(lock.path());
        let held = lock
            .lock_until(Instant::now() + timeout)
            .map_err(Error::from)?;
        let done = act();
        drop(held);
        done
    }

    /// Makes a file as open to others as the store is.
    fn share(&self, path: &Path) {
        let model = self.store.join(MANIFEST).metadata();
        if let (Ok(file), Ok(model)) = (File::open(path), model) {
            adopt(&file, &model);
        }
    }

    fn text(&self) -> Result<Option<Vec<u8>>> {
        unless_missing(fs::read(&self.file)).map_err(Error::io("read", &self.file))
    }

    /// What the two had in common; `None` if it is not remembered.
    pub(super) fn base(&self) -> Result<Option<Base>> {
        let text = unless_missing(fs::read(&self.base)).map_err(Error::io("read", &self.base))?;
        Ok(text.map(|text| Base::read(&text)))
    }

    /// Whether the file is missing, or as it was when it was last exported, imported or synced.
    fn is_as_remembered(&self) -> io::Result<bool> {
        let Some(file) = unless_missing(File::open(&self.file))? else {
            return Ok(true);
        };
        let Some(base) = unless_missing(File::open(&self.base))? else {
            return Ok(file.metadata()?.len() == 0);
        };
        if file.metadata()?.len() != base.metadata()?.len() {
            return Ok(false);
        }
        let (mut file, mut base) = (BufReader::new(file).bytes(), BufReader::new(base).bytes());
        loop {
            match (file.next().transpose()?, base.next().transpose()?) {
                (None, None) => return Ok(true),
                (one, other) if one != other => return Ok(false),
                _ => {}
            }
        }
    }

    /// Remembers what the file has, and forgets the mirrors that were not used for longest.
    pub(super) fn remember(
        &self,
        write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
    ) -> Result<()> {
        replace_atomically(&self.base, |file| {
            let mut out = BufWriter::with_capacity(1 << 20, file);
            write(&mut out)?;
            out.flush()
        })?;
        self.share(&self.base);
        let dir = self.store.join(MIRRORS);
        let listed = fs::read_dir(&dir).map_err(Error::io("list", &dir))?;
        let of_file = |path: PathBuf| -> Option<(SystemTime, PathBuf)> {
            path.extension().filter(|name| *name == "jsonl")?;
            Some((path.metadata().ok()?.modified().ok()?, path))
        };
        let mut mirrors: Vec<_> = listed
            .flatten()
            .filter_map(|entry| of_file(entry.path()))
            .collect();
        mirrors.sort_unstable();
        let surplus = mirrors.len().saturating_sub(REMEMBERED_MAX);
        for (_, path) in mirrors.into_iter().take(surplus) {
            fs::remove_file(path).ok();
        }
        Ok(())
    }
}

fn unless_missing<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

/// The path that leads from one directory to a file.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from.components().zip(to.components());
    let shared = shared.take_while(|(one, other)| one == other).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

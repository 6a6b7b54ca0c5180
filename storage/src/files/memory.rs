//! [`Files`] in memory, with a power switch.
//!
//! Each file remembers how much of it was synced, each folder which names were. [`MemoryFiles::after_power_cut`] is
//! the disk as it would be found after one: only what was made durable is left. With a byte of doubt about torn
//! writes, [`MemoryFiles::after_torn_power_cut`] keeps part of what was not synced.
//! [`MemoryFiles::fail_after`] makes the n-th mutating call and all later ones fail, as a full or dying disk does;
//! [`MemoryFiles::hold_syncs`] makes the disk so slow that nothing becomes durable before the test wants it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{AppendFile, DirectoryLock, FileInfo, Files, parent};

#[derive(Debug, Default, Clone)]
struct Content {
    data: Vec<u8>,
    synced_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    /// What a running process sees.
    names: BTreeMap<String, Arc<Mutex<Content>>>,
    /// The names a power cut would leave.
    durable_names: BTreeMap<String, Arc<Mutex<Content>>>,
    locked: bool,
    calls: u64,
    fail_from_call: Option<u64>,
    fail_call: Option<u64>,
    syncs_held: bool,
}

/// A directory that exists in memory only. Clones share it, so a store can be opened again on what an earlier one left.
#[derive(Debug, Default, Clone)]
pub struct MemoryFiles {
    state: Arc<Mutex<State>>,
    syncs_go_on: Arc<Condvar>,
}

impl MemoryFiles {
    /// An empty directory.
    pub fn new() -> Self {
        MemoryFiles::default()
    }

    /// The directory as a power cut at this moment would leave it: unlocked, and without anything that was not synced.
    pub fn after_power_cut(&self) -> MemoryFiles {
        self.after_torn_power_cut(0)
    }

    /// Like [`after_power_cut`](Self::after_power_cut), but up to `torn_bytes` of each file's unsynced end reached the
    /// disk.
    pub fn after_torn_power_cut(&self, torn_bytes: usize) -> MemoryFiles {
        let state = self.state.lock();
        let survive = |content: &Arc<Mutex<Content>>| {
            let content = content.lock();
            let kept = (content.synced_bytes + torn_bytes).min(content.data.len());
            Arc::new(Mutex::new(Content { data: content.data[..kept].to_vec(), synced_bytes: kept }))
        };
        let names: BTreeMap<_, _> =
            state.durable_names.iter().map(|(path, content)| (path.clone(), survive(content))).collect();
        let state = State { durable_names: names.clone(), names, ..State::default() };
        MemoryFiles { state: Arc::new(Mutex::new(state)), syncs_go_on: Arc::default() }
    }

    /// How many calls that change the disk were made so far.
    pub fn changes(&self) -> u64 {
        self.state.lock().calls
    }

    /// Lets `calls` more changing calls succeed and fails every one after them; `None` mends the disk.
    pub fn fail_after(&self, calls: Option<u64>) {
        let mut state = self.state.lock();
        state.fail_from_call = calls.map(|more| state.calls + more);
    }

    /// Lets `calls` more changing calls succeed, fails the next one, and none after it.
    pub fn fail_once_after(&self, calls: u64) {
        let mut state = self.state.lock();
        state.fail_call = Some(state.calls + calls);
    }

    /// Makes syncs of files wait, their threads with them, until the guard is dropped.
    pub fn hold_syncs(&self) -> HeldSyncs {
        self.state.lock().syncs_held = true;
        HeldSyncs { files: self.clone() }
    }

    /// Overwrites bytes behind the store's back, to test that it notices.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let content = self.state.lock().names.get(path).cloned();
        if let Some(content) = content {
            let mut content = content.lock();
            change(&mut content.data);
            content.synced_bytes = content.data.len();
        }
    }

    /// Removes a file behind the store's back.
    pub fn remove_file(&self, path: &str) {
        let mut state = self.state.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Puts a durable copy of a file behind the store's back.
    pub fn copy_file(&self, path: &str, copy: &str) {
        let mut state = self.state.lock();
        if let Some(content) = state.names.get(path).map(|content| content.lock().clone()) {
            let content = Arc::new(Mutex::new(content));
            state.names.insert(copy.to_owned(), Arc::clone(&content));
            state.durable_names.insert(copy.to_owned(), content);
        }
    }

    /// Takes the lock away from whoever holds it without telling them, as a network file system does that lost a lease.
    pub fn break_lock(&self) {
        self.state.lock().locked = false;
    }

    /// The paths and sizes of all files.
    pub fn paths(&self) -> Vec<(String, u64)> {
        let state = self.state.lock();
        state.names.iter().map(|(path, content)| (path.clone(), content.lock().data.len() as u64)).collect()
    }

    fn change(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if state.fail_from_call.is_some_and(|from| state.calls >= from) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "injected failure"));
        }
        state.calls += 1;
        if state.fail_call.is_some_and(|call| call + 1 == state.calls) {
            return Err(io::Error::other("injected failure"));
        }
        Ok(state)
    }

    fn content(&self, path: &str) -> io::Result<Arc<Mutex<Content>>> {
        self.state.lock().names.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// While it lives, nothing becomes durable.
#[must_use]
#[derive(Debug)]
pub struct HeldSyncs {
    files: MemoryFiles,
}

impl Drop for HeldSyncs {
    fn drop(&mut self) {
        self.files.state.lock().syncs_held = false;
        self.files.syncs_go_on.notify_all();
    }
}

struct MemoryAppend {
    files: MemoryFiles,
    content: Arc<Mutex<Content>>,
}

impl AppendFile for MemoryAppend {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        let _state = self.files.change()?;
        self.content.lock().data.extend_from_slice(data);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.files.change()?;
        self.files.syncs_go_on.wait_while(&mut state, |state| state.syncs_held);
        let mut content = self.content.lock();
        content.synced_bytes = content.data.len();
        Ok(())
    }
}

struct MemoryLock {
    files: MemoryFiles,
}

impl DirectoryLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.files.state.lock().locked = false;
    }
}

impl Files for MemoryFiles {
    fn create(&self, path: &str) -> io::Result<Box<dyn AppendFile>> {
        let mut state = self.change()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Arc::new(Mutex::new(Content::default()));
        state.names.insert(path.to_string(), Arc::clone(&content));
        Ok(Box::new(MemoryAppend { files: self.clone(), content }))
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        Ok(self.content(path)?.lock().data.clone())
    }

    fn read_range(&self, path: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        let content = self.content(path)?;
        let content = content.lock();
        let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let slice = bounds.and_then(|(start, end)| content.data.get(start..end));
        slice.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn size(&self, path: &str) -> io::Result<u64> {
        Ok(self.content(path)?.lock().data.len() as u64)
    }

    fn truncate(&self, path: &str, bytes: u64) -> io::Result<()> {
        let _state = self.change()?;
        drop(_state);
        let content = self.content(path)?;
        let mut content = content.lock();
        content.data.truncate(usize::try_from(bytes).map_err(io::Error::other)?);
        content.synced_bytes = content.data.len();
        Ok(())
    }

    fn rename_exclusive(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.change()?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_string(), content);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change()?.names.remove(path);
        Ok(())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<FileInfo>> {
        let inside =
            |path: &str| directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
        let state = self.state.lock();
        let files = state.names.iter().filter(|(path, _)| inside(path));
        Ok(files
            .map(|(path, content)| FileInfo { path: path.clone(), bytes: content.lock().data.len() as u64 })
            .collect())
    }

    fn top_level(&self) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let mut names: Vec<String> =
            state.names.keys().filter_map(|path| path.split('/').next()).map(str::to_string).collect();
        names.dedup();
        Ok(names)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut state = self.change()?;
        let State { names, durable_names, .. } = &mut *state;
        durable_names.retain(|path, _| parent(path) != directory);
        let here = names.iter().filter(|(path, _)| parent(path) == directory);
        durable_names.extend(here.map(|(path, content)| (path.clone(), Arc::clone(content))));
        Ok(())
    }

    fn lock(&self) -> io::Result<Box<dyn DirectoryLock>> {
        let mut state = self.state.lock();
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(Box::new(MemoryLock { files: self.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::publish_file;

    #[test]
    fn a_power_cut_takes_what_was_not_synced() {
        let files = MemoryFiles::new();
        publish_file(&files, "kept", &[b"all of it"]).unwrap();
        let mut log = files.create("log").unwrap();
        log.append(b"synced").unwrap();
        log.sync().unwrap();
        assert_eq!(files.after_power_cut().list("").unwrap().len(), 1, "the log's name was never synced");
        files.sync_directory("").unwrap();
        log.append(b" and not").unwrap();
        let left = files.after_power_cut();
        assert_eq!(left.read("log").unwrap(), b"synced");
        assert_eq!(left.read("kept").unwrap(), b"all of it");
        assert_eq!(files.after_torn_power_cut(3).read("log").unwrap(), b"synced an");
    }

    #[test]
    fn a_failing_disk_fails_from_the_chosen_call_on() {
        let files = MemoryFiles::new();
        files.fail_after(Some(2));
        let mut file = files.create("a").unwrap();
        file.append(b"x").unwrap();
        assert!(file.sync().is_err());
        assert!(files.remove("a").is_err());
        files.fail_after(None);
        file.sync().unwrap();
    }
}

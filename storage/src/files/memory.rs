//! [`Files`] in memory, with a power switch.
//!
//! Each file remembers what of it was synced, each folder which names were. A crash is a new directory made from that:
//!
//! | what | file contents | names |
//! |---|---|---|
//! | [`after_power_cut`](MemoryFiles::after_power_cut) | what was synced | those synced |
//! | [`after_torn_power_cut`](MemoryFiles::after_torn_power_cut) | and the first bytes written since | those synced |
//! | [`after_scattered_power_cut`](MemoryFiles::after_scattered_power_cut) | and some sectors written since | all, synced or not |
//! | [`after_kill`](MemoryFiles::after_kill) | everything, of which a later power cut takes what is not synced | all, likewise |
//!
//! [`MemoryFiles::fail_after`] makes the n-th mutating call and all later ones fail, as a full or dying disk does;
//! [`MemoryFiles::fill`] leaves room in the files there are and in no new ones of a folder;
//! [`MemoryFiles::leave_room`] is a disk with so many bytes left, on which what a file has is written over as before;
//! [`MemoryFiles::fail_lists`] makes listings fail for a moment, as those of an object store may;
//! [`MemoryFiles::hold_syncs`] makes the disk so slow that nothing becomes durable before the test wants it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{AppendFile, DirectoryLock, FileInfo, Files, parent};

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Default, Clone)]
struct Content {
    /// What a running process sees.
    data: Vec<u8>,
    /// What a power cut would leave.
    synced: Vec<u8>,
    /// What was written since, in its order: place and bytes.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Where the next append goes.
    length: usize,
}

fn write_at(data: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if data.len() < at + bytes.len() {
        data.resize(at + bytes.len(), 0);
    }
    data[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Content {
    /// A file that is as it is on the disk.
    fn durable(data: Vec<u8>) -> Content {
        Content { synced: data.clone(), length: data.len(), data, unsynced: Vec::new() }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        write_at(&mut self.data, at, bytes);
        self.unsynced.push((at, bytes.to_vec()));
    }

    fn sync(&mut self) {
        for (at, bytes) in self.unsynced.drain(..) {
            write_at(&mut self.synced, at, &bytes);
        }
    }

    /// Cuts it, durably.
    fn cut(&mut self, bytes: usize) {
        self.data.truncate(bytes);
        *self = Content::durable(std::mem::take(&mut self.data));
    }

    /// The synced bytes and the first `torn_bytes` written since.
    fn torn(&self, mut torn_bytes: usize) -> Vec<u8> {
        let mut left = self.synced.clone();
        for (at, bytes) in &self.unsynced {
            let kept = torn_bytes.min(bytes.len());
            if kept == 0 {
                break;
            }
            write_at(&mut left, *at, &bytes[..kept]);
            torn_bytes -= kept;
        }
        left
    }

    /// The synced bytes and those sectors written since that `survives` chooses; the rest is as it was, or zero.
    fn scattered(&self, mut survives: impl FnMut() -> bool) -> Vec<u8> {
        let mut left = self.synced.clone();
        for sector in 0..self.data.len().div_ceil(SECTOR_BYTES) {
            let range = sector * SECTOR_BYTES..self.data.len().min((sector + 1) * SECTOR_BYTES);
            if left.get(range.clone()) != Some(&self.data[range.clone()]) && survives() {
                write_at(&mut left, range.start, &self.data[range]);
            }
        }
        if survives() && left.len() < self.data.len() {
            // The new size was recorded, whatever became of the contents.
            left.resize(self.data.len(), 0);
        }
        left
    }
}

#[derive(Debug, Default)]
struct State {
    /// What a running process sees.
    names: BTreeMap<String, Arc<Mutex<Content>>>,
    /// The names a power cut would leave.
    durable_names: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Whose lock it is: the number of a call of `lock`.
    lock: Option<u64>,
    locks: u64,
    calls: u64,
    reads: u64,
    fail_from_call: Option<u64>,
    fail_call: Option<u64>,
    full_folder: Option<String>,
    /// How many bytes files may still grow by, all together.
    room: Option<u64>,
    /// How many they have grown by.
    grown: u64,
    failing_lists: u64,
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

    /// Like [`after_power_cut`](Self::after_power_cut), but the first `torn_bytes` that were written to each file and not
    /// synced reached the disk.
    pub fn after_torn_power_cut(&self, torn_bytes: usize) -> MemoryFiles {
        let state = self.state.lock();
        Self::found(state.durable_names.iter().map(|(path, content)| (path, content.lock().torn(torn_bytes))))
    }

    /// The directory as another power cut would leave it: names are as they were last, synced or not, and of the sectors
    /// that were not synced the `seed` says which reached the disk.
    pub fn after_scattered_power_cut(&self, seed: u64) -> MemoryFiles {
        let (state, mut random) = (self.state.lock(), seed);
        let mut survives = || {
            // Steele, Lea and Flood's SplitMix64.
            random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (random ^ (random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed ^ (mixed >> 31)).is_multiple_of(2)
        };
        Self::found(state.names.iter().map(|(path, content)| (path, content.lock().scattered(&mut survives))))
    }

    fn found<'a>(contents: impl Iterator<Item = (&'a String, Vec<u8>)>) -> MemoryFiles {
        let contents = contents.map(|(path, data)| (path.clone(), Arc::new(Mutex::new(Content::durable(data)))));
        let names: BTreeMap<_, _> = contents.collect();
        let state = State { durable_names: names.clone(), names, ..State::default() };
        MemoryFiles { state: Arc::new(Mutex::new(state)), syncs_go_on: Arc::default() }
    }

    /// The directory as the next process finds it when this one is killed: everything is there, and what was not synced
    /// is still not durable.
    pub fn after_kill(&self) -> MemoryFiles {
        let state = self.state.lock();
        let mut copies: BTreeMap<usize, Arc<Mutex<Content>>> = BTreeMap::new();
        let mut copy = |content: &Arc<Mutex<Content>>| {
            let copied = copies.entry(Arc::as_ptr(content) as usize);
            Arc::clone(copied.or_insert_with(|| {
                let content = content.lock().clone();
                Arc::new(Mutex::new(Content { length: content.data.len(), ..content }))
            }))
        };
        let mut copied = |names: &BTreeMap<String, Arc<Mutex<Content>>>| -> BTreeMap<_, _> {
            names.iter().map(|(path, content)| (path.clone(), copy(content))).collect()
        };
        let (names, durable_names) = (copied(&state.names), copied(&state.durable_names));
        let state = State { names, durable_names, ..State::default() };
        MemoryFiles { state: Arc::new(Mutex::new(state)), syncs_go_on: Arc::default() }
    }

    /// How many calls that change the disk were made so far.
    pub fn changes(&self) -> u64 {
        self.state.lock().calls
    }

    /// How many ranges of files were read so far.
    pub fn reads(&self) -> u64 {
        self.state.lock().reads
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

    /// Lets no new file come into being below this folder, as a disk does that is nearly full; `None` makes room.
    pub fn fill(&self, folder: Option<&str>) {
        self.state.lock().full_folder = folder.map(str::to_owned);
    }

    /// Lets files grow by so many bytes, all together, and fails what would make one longer than that; `None` makes room.
    /// What is removed gives nothing back.
    pub fn leave_room(&self, bytes: Option<u64>) {
        self.state.lock().room = bytes;
    }

    /// How many bytes files have grown by so far, all together.
    pub fn grown_bytes(&self) -> u64 {
        self.state.lock().grown
    }

    /// Fails the next `count` listings of a folder, and none after them.
    pub fn fail_lists(&self, count: u64) {
        self.state.lock().failing_lists = count;
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
            *content = Content::durable(std::mem::take(&mut content.data));
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
        self.state.lock().lock = None;
    }

    /// The paths and sizes of all files.
    pub fn paths(&self) -> Vec<(String, u64)> {
        let state = self.state.lock();
        state.names.iter().map(|(path, content)| (path.clone(), content.lock().data.len() as u64)).collect()
    }

    fn change(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if state.fail_from_call.is_some_and(|from| state.calls >= from) {
            return Err(no_room());
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

fn no_room() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "injected failure")
}

impl State {
    /// Takes room for a file that grows.
    fn grow(&mut self, bytes: usize) -> io::Result<()> {
        if let Some(room) = &mut self.room {
            *room = room.checked_sub(bytes as u64).ok_or_else(no_room)?;
        }
        self.grown += bytes as u64;
        Ok(())
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
        let mut state = self.files.change()?;
        let mut content = self.content.lock();
        let at = content.length;
        state.grow((at + data.len()).saturating_sub(content.data.len()))?;
        content.write(at, data);
        content.length += data.len();
        Ok(())
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.files.change()?;
        let mut content = self.content.lock();
        let (at, end) = (content.data.len(), usize::try_from(bytes).map_err(io::Error::other)?);
        if at < end {
            state.grow(end - at)?;
            content.write(at, &vec![0; end - at]);
        }
        Ok(())
    }

    fn trim(&mut self) -> io::Result<()> {
        let _state = self.files.change()?;
        let mut content = self.content.lock();
        let length = content.length;
        content.cut(length);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.files.change()?;
        self.files.syncs_go_on.wait_while(&mut state, |state| state.syncs_held);
        self.content.lock().sync();
        Ok(())
    }
}

struct MemoryLock {
    files: MemoryFiles,
    number: u64,
}

impl DirectoryLock for MemoryLock {
    fn is_held(&self) -> io::Result<bool> {
        Ok(self.files.state.lock().lock == Some(self.number))
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.files.state.lock().lock.take_if(|number| *number == self.number);
    }
}

impl Files for MemoryFiles {
    fn create(&self, path: &str) -> io::Result<Box<dyn AppendFile>> {
        let mut state = self.change()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.full_folder.as_deref().is_some_and(|folder| path.starts_with(folder)) {
            return Err(no_room());
        }
        let content = Arc::new(Mutex::new(Content::default()));
        state.names.insert(path.to_string(), Arc::clone(&content));
        Ok(Box::new(MemoryAppend { files: self.clone(), content }))
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        Ok(self.content(path)?.lock().data.clone())
    }

    fn read_range(&self, path: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        self.state.lock().reads += 1;
        let content = self.content(path)?;
        let content = content.lock();
        let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let slice = bounds.and_then(|(start, end)| content.data.get(start..end));
        slice.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn size(&self, path: &str) -> io::Result<u64> {
        Ok(self.content(path)?.lock().data.len() as u64)
    }

    fn secure(&self, path: &str, _from: u64, bytes: u64) -> io::Result<()> {
        let _state = self.change()?;
        drop(_state);
        self.content(path)?.lock().cut(usize::try_from(bytes).map_err(io::Error::other)?);
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
        let mut state = self.state.lock();
        if state.failing_lists > 0 {
            state.failing_lists -= 1;
            return Err(io::Error::other("injected failure"));
        }
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
        if state.lock.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locks += 1;
        let number = state.locks;
        state.lock = Some(number);
        Ok(Box::new(MemoryLock { files: self.clone(), number }))
    }

    fn lock_to_read(&self) -> io::Result<Option<Box<dyn DirectoryLock>>> {
        // In memory a lock leaves nothing behind.
        self.lock().map(Some)
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
    fn other_crashes_leave_what_was_not_synced_in_part_or_for_a_while() {
        let files = MemoryFiles::new();
        let mut log = files.create("log").unwrap();
        log.append(&[1; 100]).unwrap();
        log.reserve(4000).unwrap();
        log.sync().unwrap();
        log.append(&[2; 3000]).unwrap();
        assert!(files.after_power_cut().paths().is_empty());
        let lengths: std::collections::BTreeSet<usize> = (0..100)
            .map(|seed| {
                let left = files.after_scattered_power_cut(seed).read("log").unwrap();
                assert_eq!((left.len(), &left[..100]), (4000, &[1; 100][..]), "sectors are never half old");
                left.iter().filter(|byte| **byte == 2).count()
            })
            .collect();
        assert!(lengths.len() > 3 && lengths.iter().all(|bytes| *bytes <= 3000), "{lengths:?}");
        let killed = files.after_kill();
        assert_eq!(killed.read("log").unwrap(), files.read("log").unwrap());
        killed.sync_directory("").unwrap();
        assert_eq!(killed.after_power_cut().read("log").unwrap()[100..], [0; 3900]);
        killed.secure("log", 100, 3100).unwrap();
        assert_eq!(killed.after_power_cut().read("log").unwrap()[100..], [2; 3000]);
        log.trim().unwrap();
        assert_eq!(files.read("log").unwrap().len(), 3100);
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

    #[test]
    fn a_full_disk_takes_what_a_file_has_room_for_and_nothing_that_makes_one_longer() {
        let files = MemoryFiles::new();
        let mut log = files.create("log").unwrap();
        log.reserve(10).unwrap();
        files.leave_room(Some(2));
        log.append(&[1; 9]).unwrap();
        log.append(&[1; 3]).unwrap();
        assert_eq!(log.append(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(log.reserve(13).unwrap_err().kind(), io::ErrorKind::StorageFull);
        log.sync().unwrap();
        assert_eq!((files.size("log").unwrap(), files.grown_bytes()), (12, 12));
        files.leave_room(None);
        log.append(b"x").unwrap();
        assert_eq!(files.size("log").unwrap(), 13);
    }
}

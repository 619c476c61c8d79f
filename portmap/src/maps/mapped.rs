//! A BPF array that is mapped into the agent's address space: most reads and writes need no system call.
//!
//! Only one window of the array is mapped at a time, because mapped pages count as the agent's memory although the kernel owns
//! them. Consecutive reads and writes mostly concern neighbouring elements, so the window rarely changes.

use std::{
    cell::Cell,
    fs::File,
    marker::PhantomData,
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use aya::{Pod, maps::MapData};
use memmap2::{MmapOptions, MmapRaw};

/// Windows begin at multiples of this number of bytes. It must be a multiple of the page size: pages have at most 64 KiB on the
/// usual architectures.
const WINDOW: usize = 64 * 1024;

/// A pinned array whose values have the type `T`, with one window of it in memory. Reads and writes fail if the index is
/// outside of the array.
pub struct Mapped<T> {
    map: File,
    length: u32,
    /// Size of a memory page in bytes.
    page: usize,
    window: Cell<Option<Window>>,
    values: PhantomData<T>,
}

/// The part of the array that is mapped into memory now.
struct Window {
    memory: MmapRaw,
    /// Offset of the window in the array, in bytes.
    first: usize,
}

impl<T: Pod> Mapped<T> {
    /// Distance between elements in bytes: the kernel rounds the size of each element up to a multiple of 8.
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps an array that was created with `BPF_F_MMAPABLE`. Fails for another array, or if its values do not have the size of
    /// `T`.
    pub fn new(map: &MapData) -> Result<Self> {
        let info = map.info()?;
        ensure!(
            info.value_size() as usize == size_of::<T>(),
            "the map's values have {} bytes, not {}",
            info.value_size(),
            size_of::<T>()
        );
        let length = info.max_entries();
        let file = File::from(map.fd().as_fd().try_clone_to_owned()?);
        let mapped = Self { map: file, length, page: page_size()?, window: Cell::new(None), values: PhantomData };
        // Maps the first window: an array that is not mmapable makes `new` fail, not a later read or write.
        mapped.at(0, |_| ())?;
        Ok(mapped)
    }

    /// Number of elements.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// Reads the value at an index. During a write by another thread or process, a part of the value may be old and a part
    /// new.
    pub fn read(&self, index: u32) -> Result<T> {
        // SAFETY: `at` passes a mapped pointer, aligned to 8 bytes; any bytes are a value of a `Pod`.
        self.at(index, |element| unsafe { element.read_volatile() })
    }

    /// Writes the value at an index. No program may read a part of it that changes at the same time: it could read a mixture of
    /// old and new bytes.
    pub fn write(&mut self, index: u32, value: T) -> Result<()> {
        // SAFETY: `at` passes a mapped and writable pointer, aligned to 8 bytes.
        self.at(index, |element| unsafe { element.write_volatile(value) })
    }

    /// Loads the 8-byte word at a byte offset of the value at an index, atomically. Reads after this call see all writes
    /// that the writer made before it stored the word. Fails if the value has no such word.
    pub fn load_word(&self, index: u32, offset: usize) -> Result<u64> {
        self.word(index, offset, |word| word.load(Ordering::Acquire))
    }

    /// Stores the 8-byte word at a byte offset of the value at an index, atomically. A program that loads the new word sees
    /// all earlier writes, too. Fails if the value has no such word.
    pub fn store_word(&mut self, index: u32, offset: usize, value: u64) -> Result<()> {
        self.word(index, offset, |word| word.store(value, Ordering::Release))
    }

    fn word<R>(&self, index: u32, offset: usize, act: impl FnOnce(&AtomicU64) -> R) -> Result<R> {
        ensure!(
            offset.is_multiple_of(8) && offset + 8 <= size_of::<T>(),
            "a value of {} bytes has no 8-byte word at byte {offset}",
            size_of::<T>()
        );
        self.at(index, |element| {
            // SAFETY: the check above ensures that the word is within the value.
            let word = unsafe { element.cast::<u8>().add(offset) };
            // SAFETY: the word is mapped while this closure runs; element and offset are aligned to 8 bytes.
            act(unsafe { AtomicU64::from_ptr(word.cast()) })
        })
    }

    /// Calls `act` with a pointer to the value at an index. The pointer is valid, writable and aligned to 8 bytes during the
    /// call.
    fn at<R>(&self, index: u32, act: impl FnOnce(*mut T) -> R) -> Result<R> {
        ensure!(index < self.length, "index {index} is outside the map of {} entries", self.length);
        let offset = index as usize * Self::STRIDE;
        let window = match self.window.take().filter(|window| window.contains(offset, Self::STRIDE)) {
            Some(window) => window,
            None => self.open(offset)?,
        };
        // SAFETY: the window contains the whole element.
        let element = unsafe { window.memory.as_mut_ptr().add(offset - window.first) };
        let result = act(element.cast());
        self.window.set(Some(window));
        Ok(result)
    }

    /// Maps the window that contains this offset. It is one page longer than [`WINDOW`], for an element that begins at its end,
    /// but never reaches beyond the array's last page.
    fn open(&self, offset: usize) -> Result<Window> {
        let first = offset - offset % WINDOW;
        let all = (self.length as usize * Self::STRIDE).next_multiple_of(self.page);
        let length = (WINDOW + self.page).min(all - first);
        let memory = MmapOptions::new().offset(first as u64).len(length).map_raw(&self.map).context("mmap failed")?;
        Ok(Window { memory, first })
    }
}

impl Window {
    /// Whether the window contains `length` bytes of the array from this offset on.
    fn contains(&self, offset: usize, length: usize) -> bool {
        self.first <= offset && offset + length <= self.first + self.memory.len()
    }
}

fn page_size() -> Result<usize> {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.context("the page size is unknown")?;
    usize::try_from(size).context("the page size is negative")
}

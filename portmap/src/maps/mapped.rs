//! An mmapable BPF array in the agent's address space: reads and writes without a system call.
//!
//! Only a window of it is mapped at a time. What is mapped counts as the agent's memory, although it is the kernel's; and who
//! writes one place mostly writes its neighbours next.

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

/// Windows begin at multiples of this many bytes: of the size of a page, on every architecture.
const WINDOW: usize = 64 * 1024;

/// The values of an array map.
pub struct Mapped<T> {
    map: File,
    length: u32,
    /// The size of a page in bytes.
    page: usize,
    window: Cell<Option<Window>>,
    values: PhantomData<T>,
}

/// A part of the array.
struct Window {
    memory: MmapRaw,
    /// Its first byte in the array.
    first: usize,
}

impl<T: Pod> Mapped<T> {
    /// The kernel rounds the size of each element up to 8 bytes.
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps an array that was created with `BPF_F_MMAPABLE`.
    pub fn new(map: &MapData) -> Result<Self> {
        let info = map.info()?;
        ensure!(info.value_size() as usize == size_of::<T>(), "the map's values have {} bytes", info.value_size());
        let length = info.max_entries();
        let file = File::from(map.fd().as_fd().try_clone_to_owned()?);
        let mapped = Self { map: file, length, page: page_size()?, window: Cell::new(None), values: PhantomData };
        // Fails now if it ever does.
        mapped.at(0, |_| ())?;
        Ok(mapped)
    }

    /// How many values there are.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// The value at an index. If somebody writes it at the same time, parts of it may be old and others new.
    pub fn read(&self, index: u32) -> Result<T> {
        // SAFETY: the place is mapped and aligned; any bytes are a value of a `Pod`.
        self.at(index, |place| unsafe { place.read_volatile() })
    }

    /// Writes the value at an index. Only where no program reads it: a reader could see parts of both.
    pub fn write(&mut self, index: u32, value: T) -> Result<()> {
        // SAFETY: the place is mapped, writable and aligned.
        self.at(index, |place| unsafe { place.write_volatile(value) })
    }

    /// Loads the 8-byte word at a byte offset in the value at an index, whole, and sees everything that was written before it.
    pub fn load_word(&self, index: u32, offset: usize) -> Result<u64> {
        self.word(index, offset, |word| word.load(Ordering::Acquire))
    }

    /// Stores a word for programs to see: whole, and they see everything that was written before, too.
    pub fn store_word(&mut self, index: u32, offset: usize, value: u64) -> Result<()> {
        self.word(index, offset, |word| word.store(value, Ordering::Release))
    }

    fn word<R>(&self, index: u32, offset: usize, act: impl FnOnce(&AtomicU64) -> R) -> Result<R> {
        ensure!(offset.is_multiple_of(8) && offset + 8 <= size_of::<T>(), "no word lies at {offset}");
        self.at(index, |place| {
            // SAFETY: the word lies within the value, as ensured above.
            let word = unsafe { place.cast::<u8>().add(offset) };
            // SAFETY: the word is mapped as long as this closure runs, and is aligned to 8 bytes.
            act(unsafe { AtomicU64::from_ptr(word.cast()) })
        })
    }

    /// Has something done at the place of a value, which is mapped meanwhile.
    fn at<R>(&self, index: u32, act: impl FnOnce(*mut T) -> R) -> Result<R> {
        ensure!(index < self.length, "index {index} is outside the map of {} entries", self.length);
        let offset = index as usize * Self::STRIDE;
        let window = match self.window.take().filter(|window| window.holds(offset, Self::STRIDE)) {
            Some(window) => window,
            None => self.open(offset)?,
        };
        // SAFETY: the window holds the whole element.
        let place = unsafe { window.memory.as_mut_ptr().add(offset - window.first) };
        let result = act(place.cast());
        self.window.set(Some(window));
        Ok(result)
    }

    /// The window that a byte of the array lies in. An element may reach out of it by less than a page.
    fn open(&self, offset: usize) -> Result<Window> {
        let first = offset - offset % WINDOW;
        let all = (self.length as usize * Self::STRIDE).next_multiple_of(self.page);
        let length = (WINDOW + self.page).min(all - first);
        let memory = MmapOptions::new().offset(first as u64).len(length).map_raw(&self.map).context("failed to mmap it")?;
        Ok(Window { memory, first })
    }
}

impl Window {
    fn holds(&self, offset: usize, length: usize) -> bool {
        self.first <= offset && offset + length <= self.first + self.memory.len()
    }
}

fn page_size() -> Result<usize> {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.context("the page size is unknown")?;
    usize::try_from(size).context("the page size is negative")
}

//! An mmapable BPF array in the agent's address space: reads and writes without a system call.

use std::{
    marker::PhantomData,
    os::fd::AsFd as _,
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use aya::{Pod, maps::MapData};
use memmap2::{MmapOptions, MmapRaw};

/// The values of an array map.
#[derive(Debug)]
pub struct Mapped<T> {
    memory: MmapRaw,
    length: u32,
    values: PhantomData<T>,
}

impl<T: Pod> Mapped<T> {
    /// The kernel rounds the size of each element up to 8 bytes.
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps an array that was created with `BPF_F_MMAPABLE`.
    pub fn new(map: &MapData) -> Result<Self> {
        let info = map.info()?;
        ensure!(info.value_size() as usize == size_of::<T>(), "the map's values have {} bytes", info.value_size());
        let length = info.max_entries();
        let bytes = (length as usize * Self::STRIDE).next_multiple_of(page_size()?);
        let memory = MmapOptions::new().len(bytes).map_raw(map.fd().as_fd().as_raw_fd()).context("failed to mmap it")?;
        Ok(Self { memory, length, values: PhantomData })
    }

    /// How many values there are.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// The value at an index. If somebody writes it at the same time, parts of it may be old and others new.
    pub fn read(&self, index: u32) -> Result<T> {
        let place = self.place(index)?;
        // SAFETY: `place` lies in the mapping and is aligned; any bytes are a value of a `Pod`.
        Ok(unsafe { place.read_volatile() })
    }

    /// Writes the value at an index. Only where no program reads it: a reader could see parts of both.
    pub fn write(&mut self, index: u32, value: T) -> Result<()> {
        let place = self.place(index)?;
        // SAFETY: `place` lies in the mapping and is aligned, and the mapping is writable.
        unsafe { place.write_volatile(value) };
        Ok(())
    }

    /// The 8-byte word at a byte offset in the value at an index: loads and stores of it are atomic, for programs too.
    pub fn word(&self, index: u32, offset: usize) -> Result<&AtomicU64> {
        ensure!(offset.is_multiple_of(8) && offset + 8 <= size_of::<T>(), "no word lies at {offset}");
        let value = self.place(index)?.cast::<u8>();
        // SAFETY: the word lies within the value, as ensured above.
        let word = unsafe { value.add(offset) };
        // SAFETY: the word lies in the mapping, which lives as long as `self`, and is aligned to 8 bytes.
        Ok(unsafe { AtomicU64::from_ptr(word.cast()) })
    }

    /// Stores a word for programs to see: they see everything that was written before, too.
    pub fn store_word(&mut self, index: u32, offset: usize, word: u64) -> Result<()> {
        self.word(index, offset)?.store(word, Ordering::Release);
        Ok(())
    }

    fn place(&self, index: u32) -> Result<*mut T> {
        ensure!(index < self.length, "index {index} is outside the map of {} entries", self.length);
        // SAFETY: the mapping holds `length` elements of `STRIDE` bytes, and the index is one of them.
        Ok(unsafe { self.memory.as_mut_ptr().add(index as usize * Self::STRIDE) }.cast())
    }
}

fn page_size() -> Result<usize> {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.context("the page size is unknown")?;
    usize::try_from(size).context("the page size is negative")
}

//! A file for what does not fit into memory. It has no name and is gone with the process: nothing here is durable.
//!
//! Pieces lie in spaces whose length is a multiple of [`UNIT`]; a space that is given back serves the next piece that
//! needs as many. The checksum of a piece lies before it: a disk may give back something else than was written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::packed::{Scratch, keep_in};

/// Bytes. A place is a number of these, so that the file may have 256 GiB.
const UNIT: usize = 64;
const CHECKSUM: usize = 8;
/// How many bytes of the packed maps of a process stay in memory.
const HELD: usize = 1 << 19;

/// Has this process keep large maps in a file in that directory, but for what it needs now. Only the first call counts.
///
/// # Errors
///
/// If there can be no file.
pub(crate) fn keep_maps_in(directory: &Path) -> io::Result<()> {
    keep_in(|| Ok(Box::new(ScratchFile::in_directory(directory)?)), HELD)
}

#[derive(Debug)]
struct ScratchFile {
    file: File,
    spaces: Mutex<Spaces>,
}

#[derive(Debug, Default)]
struct Spaces {
    /// Where the file ends, in units.
    end: u32,
    /// What was given back, by how many units it has.
    free: Vec<Vec<u32>>,
    /// A refusal was told.
    is_told: bool,
}

fn units(len: usize) -> usize {
    (CHECKSUM + len).div_ceil(UNIT)
}

fn offset(place: u32) -> u64 {
    u64::from(place) * UNIT as u64
}

impl Spaces {
    fn take(&mut self, units: usize) -> io::Result<u32> {
        if let Some(place) = self.free.get_mut(units).and_then(Vec::pop) {
            return Ok(place);
        }
        let end = u32::try_from(units).ok().and_then(|units| self.end.checked_add(units));
        let end = end.ok_or(io::ErrorKind::StorageFull)?;
        Ok(std::mem::replace(&mut self.end, end))
    }

    fn give_back(&mut self, place: u32, units: usize) {
        if self.free.len() <= units {
            self.free.resize_with(units + 1, Vec::new);
        }
        self.free[units].push(place);
    }
}

impl ScratchFile {
    fn in_directory(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(directory)?, spaces: Mutex::default() })
    }

    /// Whoever has panicked with it: the spaces are whole at any time.
    fn spaces(&self) -> MutexGuard<'_, Spaces> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scratch for ScratchFile {
    fn put(&self, bytes: &[u8]) -> io::Result<u32> {
        let mut piece = Vec::with_capacity(CHECKSUM + bytes.len());
        piece.extend_from_slice(&xxh3_64(bytes).to_le_bytes());
        piece.extend_from_slice(bytes);
        let units = units(bytes.len());
        let place = self.spaces().take(units)?;
        self.file.write_all_at(&piece, offset(place)).map(|()| place).inspect_err(|error| {
            let mut spaces = self.spaces();
            spaces.give_back(place, units);
            if !std::mem::replace(&mut spaces.is_told, true) {
                tracing::warn!(%error, "the scratch file takes no more: all of the rest stays in memory");
            }
        })
    }

    fn get(&self, place: u32, bytes: &mut [u8]) -> io::Result<()> {
        let mut piece = vec![0; CHECKSUM + bytes.len()];
        self.file.read_exact_at(&mut piece, offset(place))?;
        let (checksum, content) = piece.split_at(CHECKSUM);
        if checksum != xxh3_64(content).to_le_bytes() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is not what was written there",
            ));
        }
        bytes.copy_from_slice(content);
        Ok(())
    }

    fn free(&self, place: u32, len: usize) {
        self.spaces().give_back(place, units(len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_there_is_got_back_and_spaces_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = ScratchFile::in_directory(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it has no name");
        let piece = |n: usize| vec![n as u8; 20 + n * 13];
        let places: Vec<_> = (0..50).map(|n| scratch.put(&piece(n)).unwrap()).collect();
        for (n, &place) in places.iter().enumerate() {
            let mut read = piece(n);
            read.fill(255);
            scratch.get(place, &mut read).unwrap();
            assert_eq!(read, piece(n));
        }
        let end = scratch.spaces().end;
        for (n, &place) in places.iter().enumerate() {
            scratch.free(place, piece(n).len());
        }
        for n in (0..50).rev() {
            scratch.put(&piece(n)).unwrap();
        }
        assert_eq!(scratch.spaces().end, end);
    }

    #[test]
    fn what_the_disk_makes_up_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = ScratchFile::in_directory(folder.path()).unwrap();
        let place = scratch.put(&[7; 100]).unwrap();
        scratch.file.write_all_at(&[8], offset(place) + 50).unwrap();
        let error = scratch.get(place, &mut [0; 100]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(scratch.get(place + 100, &mut [0; 100]).is_err(), "nothing lies there");
    }
}

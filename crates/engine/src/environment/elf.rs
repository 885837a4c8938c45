//! Just enough of the ELF format to see which libraries a file needs and to move its search path along with it.

/// The part of a 64-bit little-endian ELF file that speaks of libraries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dynamic {
    /// The libraries it needs, by name.
    pub(super) needed: Vec<String>,
    /// Where it looks for them: the text, and its place in the file.
    pub(super) search_path: Option<(String, usize)>,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// A segment: its type, place in the file, address, size in the file.
struct Segment {
    kind: u32,
    offset: usize,
    address: u64,
    size: usize,
}

/// Reads the dynamic section; `None` for files that are no such ELF or are cut short.
pub(super) fn dynamic(file: &[u8]) -> Option<Dynamic> {
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let segments = segments(file)?;
    let Some(section) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else {
        return Some(Dynamic::default());
    };
    let entries: Vec<(u64, u64)> = file
        .get(section.offset..section.offset.checked_add(section.size)?)?
        .chunks_exact(16)
        .map_while(|entry| Some((word(entry, 0)?, word(entry, 8)?)))
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    let strings = entries.iter().find(|(tag, _)| *tag == DT_STRTAB).map(|(_, address)| *address)?;
    let strings = segments.iter().find_map(|segment| {
        let inside = usize::try_from(strings.checked_sub(segment.address)?).ok()?;
        (segment.kind == PT_LOAD && inside < segment.size).then(|| segment.offset.checked_add(inside))?
    })?;
    let place = |value: u64| strings.checked_add(usize::try_from(value).ok()?);
    let mut result = Dynamic::default();
    for (tag, value) in entries {
        match tag {
            DT_NEEDED => result.needed.push(text(file, place(value)?)?),
            DT_RPATH | DT_RUNPATH => result.search_path = Some((text(file, place(value)?)?, place(value)?)),
            _ => {}
        }
    }
    Some(result)
}

/// Writes a new search path over the old one. False where it does not fit: the table of strings cannot grow.
pub(super) fn replace_search_path(file: &mut [u8], dynamic: &Dynamic, new: &str) -> bool {
    let Some((old, place)) = &dynamic.search_path else {
        return false;
    };
    let Some(room) = place.checked_add(old.len()).and_then(|end| file.get_mut(*place..end)) else {
        return false;
    };
    if new.len() > room.len() {
        return false;
    }
    room.fill(0);
    for (to, from) in room.iter_mut().zip(new.bytes()) {
        *to = from;
    }
    true
}

fn segments(file: &[u8]) -> Option<Vec<Segment>> {
    let table = usize::try_from(word(file, 0x20)?).ok()?;
    let size = usize::from(u16::from_le_bytes(bytes(file, 0x36)?));
    let count = usize::from(u16::from_le_bytes(bytes(file, 0x38)?));
    let one = |index: usize| {
        let header = file.get(table.checked_add(index.checked_mul(size)?)?..)?;
        Some(Segment {
            kind: u32::from_le_bytes(bytes(header, 0)?),
            offset: usize::try_from(word(header, 8)?).ok()?,
            address: word(header, 16)?,
            size: usize::try_from(word(header, 32)?).ok()?,
        })
    };
    (0..count).map(one).collect()
}

fn text(file: &[u8], place: usize) -> Option<String> {
    let rest = file.get(place..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    String::from_utf8(rest.get(..end)?.to_vec()).ok()
}

fn word(file: &[u8], place: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes(file, place)?))
}

fn bytes<const N: usize>(file: &[u8], place: usize) -> Option<[u8; N]> {
    file.get(place..place.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with one library and a search path, laid out by hand.
    fn sample(search_path: &str) -> Vec<u8> {
        let strings = format!("\0libpython3.12.so.1.0\0{search_path}\0");
        let dynamic: [(u64, u64); 4] = [(DT_NEEDED, 1), (DT_RUNPATH, 22), (DT_STRTAB, 0x1000 + 0x200), (0, 0)];
        let mut file = vec![0; 0x200];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x20..0x28].copy_from_slice(&0x40u64.to_le_bytes());
        file[0x36..0x38].copy_from_slice(&56u16.to_le_bytes());
        file[0x38..0x3a].copy_from_slice(&2u16.to_le_bytes());
        let mut segment = |index: usize, kind: u32, offset: u64, address: u64, size: u64| {
            let at = 0x40 + index * 56;
            file[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            file[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
            file[at + 16..at + 24].copy_from_slice(&address.to_le_bytes());
            file[at + 32..at + 40].copy_from_slice(&size.to_le_bytes());
        };
        segment(0, PT_LOAD, 0, 0x1000, 0x400);
        segment(1, PT_DYNAMIC, 0x100, 0x1100, 64);
        for (index, (tag, value)) in dynamic.into_iter().enumerate() {
            let at = 0x100 + index * 16;
            file[at..at + 8].copy_from_slice(&tag.to_le_bytes());
            file[at + 8..at + 16].copy_from_slice(&value.to_le_bytes());
        }
        file.extend(strings.bytes());
        file
    }

    #[test]
    fn needs_and_search_path_are_read() {
        let dynamic = dynamic(&sample("/home/x/lib")).unwrap();
        assert_eq!(dynamic.needed, ["libpython3.12.so.1.0"]);
        assert_eq!(dynamic.search_path, Some(("/home/x/lib".into(), 0x200 + 22)));
    }

    #[test]
    fn a_shorter_search_path_is_written_over() {
        let mut file = sample("/home/someone/lib");
        let before = dynamic(&file).unwrap();
        assert!(replace_search_path(&mut file, &before, "$ORIGIN/../lib"));
        assert_eq!(dynamic(&file).unwrap().search_path.unwrap().0, "$ORIGIN/../lib");
    }

    #[test]
    fn a_longer_one_is_refused() {
        let mut file = sample("/p/lib");
        let before = dynamic(&file).unwrap();
        assert!(!replace_search_path(&mut file, &before, "$ORIGIN/../lib"));
        assert_eq!(dynamic(&file).unwrap(), before);
    }

    #[test]
    fn files_cut_anywhere_do_no_harm() {
        let file = sample("/home/x/lib");
        for end in 0..file.len() {
            let _ = dynamic(&file[..end]);
        }
        assert_eq!(dynamic(b"#!/bin/sh\n"), None);
    }
}

//! Names in messages: quoted, and the one offered that was probably meant.

use alloc::vec::Vec;
use core::fmt::{self, Write};

/// A name from the manifest between quotation marks, with what no terminal should get replaced.
pub(super) struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        self.0.chars().try_for_each(|c| f.write_char(if c.is_control() { '?' } else { c }))?;
        f.write_char('"')
    }
}

/// Things with commas between.
pub(super) fn list<T: fmt::Display>(things: impl Iterator<Item = T> + Clone) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        things.clone().enumerate().try_for_each(|(n, thing)| {
            f.write_str(if n == 0 { "" } else { ", " })?;
            thing.fmt(f)
        })
    })
}

/// Names further apart than this are not alike.
const MAX_DISTANCE: usize = 3;
/// Longer names are not compared.
const MAX_LENGTH: usize = 96;

/// `; did you mean "x"?`, or nothing.
pub(super) struct Offer<'a>(Option<&'a str>);

impl fmt::Display for Offer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, "; did you mean {}?", Quoted(name)))
    }
}

/// The candidate that is most like `name`, if any is.
pub(super) fn offer<'a>(name: &str, candidates: &mut dyn Iterator<Item = &'a str>) -> Offer<'a> {
    let mut nearest = None;
    for candidate in candidates {
        if let Some(distance) = distance(name, candidate)
            && nearest.is_none_or(|(least, _)| distance < least)
        {
            nearest = Some((distance, candidate));
        }
    }
    Offer(nearest.map(|(_, candidate)| candidate))
}

/// Edits that turn one name into the other (Levenshtein), where they are few for the length.
fn distance(a: &str, b: &str) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let limit = MAX_DISTANCE.min(a.len().max(b.len()) / 2);
    if a.len().max(b.len()) > MAX_LENGTH || a.len().abs_diff(b.len()) > limit {
        return None;
    }
    // The row of distances from the first bytes of `a` to each prefix of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, &from) in a.iter().enumerate() {
        let mut diagonal = index;
        let mut left = index.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, &to) in row.iter_mut().skip(1).zip(b) {
            let replaced = diagonal.saturating_add(usize::from(from != to));
            diagonal = *cell;
            left = replaced.min(diagonal.saturating_add(1)).min(left.saturating_add(1));
            *cell = left;
        }
    }
    row.last().copied().filter(|&distance| distance <= limit)
}

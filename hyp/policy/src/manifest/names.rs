//! Offering the name that was probably meant.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Names further apart than this are not alike.
const MAX_DISTANCE: usize = 3;
/// Longer names are not compared.
const MAX_LENGTH: usize = 96;

/// `; did you mean "x"?` for the candidate that is most like `name`, or nothing where none is.
pub(super) fn offer<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let nearest = candidates
        .into_iter()
        .filter_map(|candidate| Some((distance(name, candidate)?, candidate)))
        .min_by_key(|&(distance, _)| distance);
    nearest.map_or(String::new(), |(_, candidate)| format!("; did you mean {candidate:?}?"))
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

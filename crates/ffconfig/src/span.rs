//! Runs of commands, and how one cuts another.

/// The commands from `first` to `last`, both included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u32,
    pub(crate) last: u32,
}

impl Span {
    pub(crate) fn single(command: u32) -> Self {
        Self { first: command, last: command }
    }

    /// The commands of both.
    pub(crate) fn common(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }

    /// The pieces of this span, in order, each with whether it is inside of `cuts`, which are disjoint and
    /// sorted.
    pub(crate) fn cut(self, cuts: &[Self]) -> Vec<(Self, bool)> {
        let mut pieces = Vec::new();
        let mut next = Some(self.first);
        let from = cuts.partition_point(|cut| cut.last < self.first);
        for inside in cuts[from..].iter().map_while(|cut| self.common(*cut)) {
            if let Some(first) = next.filter(|first| *first < inside.first) {
                pieces.push((Self { first, last: inside.first - 1 }, false));
            }
            pieces.push((inside, true));
            next = inside.last.checked_add(1);
        }
        if let Some(first) = next.filter(|first| *first <= self.last) {
            pieces.push((Self { first, last: self.last }, false));
        }
        pieces
    }
}

/// The commands of all spans, as spans that are disjoint and sorted.
pub(crate) fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable_by_key(|span| span.first);
    let mut union: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match union.last_mut() {
            Some(before) if span.first <= before.last => before.last = before.last.max(span.last),
            _ => union.push(span),
        }
    }
    union
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = u32::MAX;

    fn span((first, last): (u32, u32)) -> Span {
        Span { first, last }
    }

    #[test]
    fn a_span_is_cut_into_pieces_inside_and_outside() {
        let cut = |whole, cuts: &[(u32, u32)]| -> Vec<(u32, u32, bool)> {
            let cuts: Vec<Span> = cuts.iter().copied().map(span).collect();
            let pieces = span(whole).cut(&cuts).into_iter();
            pieces.map(|(piece, inside)| (piece.first, piece.last, inside)).collect()
        };
        assert_eq!(cut((10, 20), &[]), [(10, 20, false)]);
        assert_eq!(cut((10, 20), &[(0, 9), (21, 30)]), [(10, 20, false)]);
        assert_eq!(cut((10, 20), &[(0, 10), (20, 20)]), [(10, 10, true), (11, 19, false), (20, 20, true)]);
        assert_eq!(cut((10, 20), &[(0, 5), (12, 13)]), [(10, 11, false), (12, 13, true), (14, 20, false)]);
        assert_eq!(cut((10, 20), &[(0, MAX)]), [(10, 20, true)]);
        assert_eq!(
            cut((0, MAX), &[(0, 0), (MAX, MAX)]),
            [(0, 0, true), (1, MAX - 1, false), (MAX, MAX, true)]
        );
    }

    #[test]
    fn a_union_has_every_command_once() {
        let spans = [(5, 9), (1, 2), (7, 20), (8, 9), (2, 2), (MAX, MAX)].map(span);
        assert_eq!(union(spans.to_vec()), [(1, 2), (5, 20), (MAX, MAX)].map(span));
        assert_eq!(union(Vec::new()), []);
    }
}

//! How the fuzzer's bytes become a stream that arrives in pieces.

/// The head of an input: which variant of the decoder, and which limit.
pub(crate) struct Input<'a> {
    /// Chooses among the variants of a check.
    pub(crate) variant: u8,
    /// The largest length that the decoder lets through.
    pub(crate) length_max: u32,
    sizes: &'a [u8],
    /// The bytes on the wire.
    pub(crate) stream: &'a [u8],
}

impl<'a> Input<'a> {
    /// `variant u8, limit u8, n u8, n sizes of pieces, the stream`; what is missing is zero.
    pub(crate) fn of(data: &'a [u8]) -> Self {
        const LIMITS: [u32; 5] = [65_536, 16 * 1024 * 1024, 64, 4, u32::MAX];
        let (head, rest) = data.split_at(data.len().min(3));
        let byte = |at: usize| head.get(at).copied().unwrap_or_default();
        let (sizes, stream) = rest.split_at(rest.len().min(usize::from(byte(2))));
        let length_max = LIMITS[usize::from(byte(1)) % LIMITS.len()];
        Self { variant: byte(0), length_max, sizes, stream }
    }

    /// How many bytes of the stream have arrived after each read: as the sizes say, then all.
    pub(crate) fn arrivals(&self) -> impl Iterator<Item = usize> {
        let all = self.stream.len();
        let arrive = move |seen: &mut usize, size: &u8| {
            *seen = (*seen + usize::from(*size)).min(all);
            Some(*seen)
        };
        self.sizes.iter().scan(0, arrive).chain([all])
    }
}

//! Chance: random bytes, by the system or, for tests, from a seed.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::system;

/// A source of random bytes. Cheap to clone; clones draw from one sequence.
///
/// What must not be guessed (the nonces of handshakes, the names of doors, the salt of a journal) is drawn from it like the rest,
/// so a program has the system's, [`Chance::system`], which is made for cryptography. A seeded one is for tests alone: who
/// knows the seed knows all that comes of it. The layering test keeps it out of what users run.
#[derive(Clone)]
pub struct Chance(Source);

#[derive(Clone)]
enum Source {
    System,
    Seeded(Arc<Seeded>),
}

/// SplitMix64 (Steele, Lea, Flood 2014): its state is a counter, so that drawing takes no lock.
struct Seeded {
    seed: u64,
    drawn: AtomicU64,
}

/// Why there are no random bytes.
#[derive(Debug, thiserror::Error)]
pub enum ChanceError {
    /// The system gives none.
    #[error("the system gives no random bytes")]
    System(#[source] io::Error),
}

impl From<ChanceError> for io::Error {
    fn from(error: ChanceError) -> Self {
        Self::other(error)
    }
}

impl Chance {
    /// The system's random bytes, which nobody can guess.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A sequence that is the same for the same seed, and that can be guessed. For tests.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Seeded { seed, drawn: AtomicU64::new(0) })))
    }

    /// A chance of its own for the part of that name: what it gives does not depend on how much others have drawn. The same
    /// seed and name give the same sequence.
    ///
    /// ```
    /// # use ffambient::Chance;
    /// let chance = Chance::seeded(7);
    /// let (gate, net) = (chance.stream("gate"), chance.stream("net"));
    /// let first = gate.u64()?;
    /// assert_eq!((net.u64()?, first), (chance.stream("net").u64()?, chance.stream("gate").u64()?));
    /// # Ok::<(), ffambient::ChanceError>(())
    /// ```
    #[must_use]
    pub fn stream(&self, part: &str) -> Self {
        match &self.0 {
            Source::System => Self::system(),
            // FNV-1a, mixed: unlike the standard library's, it is the same in every process.
            Source::Seeded(seeded) => {
                let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
                let name = part.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv);
                Self::seeded(mix(seeded.seed ^ mix(name)))
            }
        }
    }

    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`ChanceError`]: what is in `bytes` is not random then.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), ChanceError> {
        match &self.0 {
            Source::System => system::fill(bytes).map_err(ChanceError::System)?,
            Source::Seeded(seeded) => {
                for eight in bytes.chunks_mut(8) {
                    eight.copy_from_slice(&seeded.next().to_le_bytes()[..eight.len()]);
                }
            }
        }
        Ok(())
    }

    /// A random number.
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    pub fn u64(&self) -> Result<u64, ChanceError> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A share from 0 to less than 1, for pauses that are not to be in step. Without random bytes it is 0: there is no jitter
    /// then, and nothing else is lost.
    pub fn share(&self) -> f64 {
        // As many bits as an f64 holds.
        self.u64().map_or(0.0, |random| (random >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

impl Seeded {
    fn next(&self) -> u64 {
        let n = self.drawn.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        mix(self.seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

impl fmt::Debug for Chance {
    /// Without the seed: what comes of it stands in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Source::System => "Chance(system)",
            Source::Seeded(_) => "Chance(seeded)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(chance: &Chance) -> [u64; 3] {
        [(); 3].map(|()| chance.u64().unwrap())
    }

    #[test]
    fn one_seed_gives_one_sequence_which_is_splitmix64s() {
        // The published values for the seed 1234567.
        let published = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(some(&Chance::seeded(1_234_567)), published);
        assert_ne!(some(&Chance::seeded(1_234_568)), published);
    }

    #[test]
    fn clones_draw_from_one_sequence_and_streams_from_their_own() {
        let all = some(&Chance::seeded(1));
        let chance = Chance::seeded(1);
        let (gate, net) = (chance.stream("gate"), chance.stream("net"));
        let (of_gate, of_net) = (some(&gate), some(&net));
        assert_ne!(of_gate, of_net);
        assert_eq!([chance.u64().unwrap(), chance.clone().u64().unwrap(), chance.u64().unwrap()], all);
        assert_eq!(some(&chance.stream("gate")), of_gate, "whatever else was drawn");
    }

    #[test]
    fn every_byte_is_filled_and_a_share_is_below_one() {
        for chance in [Chance::seeded(3), Chance::system()] {
            let mut sums = [0_u32; 13];
            for _ in 0..64 {
                let mut bytes = [0; 13];
                chance.fill(&mut bytes).unwrap();
                sums.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum += u32::from(byte));
            }
            assert!(sums.iter().all(|sum| *sum > 0), "{chance:?}: {sums:?}");
            let shares: Vec<f64> = (0..1_000).map(|_| chance.share()).collect();
            assert!(shares.iter().all(|share| (0.0..1.0).contains(share)), "{chance:?}");
            let mean = shares.iter().sum::<f64>() / 1_000.0;
            assert!((0.4..0.6).contains(&mean), "{chance:?}: {mean}");
        }
    }

    #[test]
    fn the_systems_chance_gives_something_else_each_time_and_nobody_prints_a_seed() {
        let (a, b) = (Chance::system(), Chance::system().stream("x"));
        assert_ne!(some(&a), some(&b));
        assert_eq!(format!("{:?} {a:?}", Chance::seeded(77)), "Chance(seeded) Chance(system)");
    }
}

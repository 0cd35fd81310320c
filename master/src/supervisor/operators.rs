//! The operators of the running master: those of the config that was taken last.

use std::sync::Arc;

use ffconfig::Operator;
use parking_lot::RwLock;

/// The operators that the webport lets in by their tokens. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operators(Arc<RwLock<Arc<[Operator]>>>);

impl Operators {
    pub(crate) fn of(operators: &[Operator]) -> Self {
        let all = Self::default();
        all.follow(operators);
        all
    }

    /// Those of now.
    pub(crate) fn current(&self) -> Arc<[Operator]> {
        self.0.read().clone()
    }

    /// From now on these, and nobody else.
    pub(crate) fn follow(&self, operators: &[Operator]) {
        *self.0.write() = operators.into();
    }
}

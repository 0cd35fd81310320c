//! Where an `impl` may stand: an inherent one in the file of its type, or in that file's folder; one of a trait in a room
//! that defines the trait, the type, or an argument of them. Else code of one room would be another's by its types.

use crate::Fault;
use crate::index::Index;
use crate::source::File;

pub(crate) fn check(index: &Index, files: &[File]) -> Vec<Fault> {
    let stray = index.impls.iter().filter(|of| !is_home(&files[of.home], &files[of.file]));
    let fault = |of: &crate::index::Impl| {
        let (at, ty, home) = (files[of.file].place(of.line), of.ty.clone(), files[of.home].path.clone());
        Fault::Stray { at, ty, home }
    };
    let mut faults: Vec<_> = stray.map(fault).collect();
    for of in &index.trait_impls {
        let mut rooms = of.homes.iter().map(|home| files[*home].room());
        if let Some(home) = of.homes.first()
            && !rooms.any(|room| room == files[of.file].room())
        {
            let (at, ty, home) = (files[of.file].place(of.line), of.what.clone(), files[*home].path.clone());
            faults.push(Fault::Stray { at, ty, home });
        }
    }
    faults.sort_by(|a, b| a.at().cmp(b.at()));
    faults
}

/// The folder of `x.rs` and of `x/mod.rs` is `x/`. The crate's root has none: it would be the whole crate.
fn is_home(home: &File, file: &File) -> bool {
    home.path == file.path || !home.module.is_empty() && file.module.starts_with(&home.module)
}

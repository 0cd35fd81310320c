//! Where the run folder of a config is: what its master keeps there, a node that is started by hand finds.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where run folders are, unless a command line says so: FF_RUN_DIR, XDG_RUNTIME_DIR, or the folder for temporary files.
pub fn base(env: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let named = ["FF_RUN_DIR", "XDG_RUNTIME_DIR"].iter().find_map(|name| env(name));
    named.filter(|path| !path.is_empty()).map_or_else(std::env::temp_dir, PathBuf::from)
}

/// The run folder of a config for a user: the user's own, and named by the config's path.
pub fn of_config(base: &Path, config: &Path, uid: u32) -> PathBuf {
    let config = std::fs::canonicalize(config).unwrap_or_else(|_| config.to_owned());
    let hash = Sha256::digest(config.as_os_str().as_encoded_bytes());
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    base.join(format!("ff-{uid}-{hash}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_and_each_config_has_a_folder_of_its_own() {
        let of = |config: &str, uid| of_config(Path::new("/run"), Path::new(config), uid);
        assert_eq!(of("/x/config.json", 7), of("/x/config.json", 7));
        assert_ne!(of("/x/config.json", 7), of("/x/config.json", 8));
        assert_ne!(of("/x/config.json", 7), of("/y/config.json", 7));
        let folder = |set: &'static str| base(&move |name| (name == set).then(|| "/there".into()));
        assert_eq!(folder("FF_RUN_DIR"), Path::new("/there"));
        assert_eq!(folder("XDG_RUNTIME_DIR"), Path::new("/there"));
        assert_eq!(folder("HOME"), std::env::temp_dir());
    }
}

//! The features that a program was built with, held against what its config wants of a node.

use ffstore::Drivers;

/// What a program was built with, of all that a config may ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct BuiltIn {
    pub(super) drivers: Drivers,
    pub(super) web: bool,
}

impl BuiltIn {
    /// Of this program.
    pub(super) const HERE: Self = Self { drivers: Drivers::BUILT_IN, web: cfg!(feature = "web") };

    /// What the config wants of a node and the program lacks: a sentence for each key.
    pub(super) fn lacking(self, cluster: &ffconfig::Cluster, node: &ffconfig::Node) -> Vec<String> {
        let web =
            (node.webport.is_some() && !self.web).then(|| (format!("servers.{}.webport", node.key), "web"));
        let all = self.drivers.lacking(cluster, node).into_iter().chain(web);
        let sentence = |(key, feature): (String, &str)| {
            format!("{key}: this program was built without the feature `{feature}` (ffserver, Cargo.toml)")
        };
        all.map(sentence).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::app::app::App;
    use crate::runtime::preflight::check_apps;

    const CONFIG: &str = r#"{
        "master": { "rootport": 1, "webport": 2 },
        "db": { "url": "sqlite::memory:", "read_url": "postgres://h/game" },
        "databases": { "logs": { "url": "mariadb://h/logs" } },
        "memcached": { "urls": ["h:1"] },
        "servers": {
            "all": { "app": "a", "db": true, "mem": true, "webport": 3 },
            "few": { "app": "a" }
        }
    }"#;

    fn cluster() -> ffconfig::Cluster {
        ffconfig::parse(CONFIG, Path::new("config.json"), &|_| None).unwrap().cluster
    }

    fn lacking(node: &str, built_in: BuiltIn) -> Vec<String> {
        let cluster = cluster();
        built_in.lacking(&cluster, cluster.node(node).unwrap())
    }

    #[test]
    fn a_program_without_a_feature_names_each_key_of_the_node_that_needs_it() {
        let drivers = Drivers { mysql: false, postgres: false, memcached: false };
        let none = BuiltIn { drivers, web: false };
        let without = "this program was built without the feature";
        assert_eq!(
            lacking("all", none),
            [
                format!("db.read_url: {without} `postgres` (ffserver, Cargo.toml)"),
                format!("databases.logs.url: {without} `mysql` (ffserver, Cargo.toml)"),
                format!("servers.all.mem: {without} `memcached` (ffserver, Cargo.toml)"),
                format!("servers.all.webport: {without} `web` (ffserver, Cargo.toml)"),
            ]
        );
        assert_eq!(lacking("few", none), Vec::<String>::new());
        let all = BuiltIn { drivers: Drivers { mysql: true, postgres: true, memcached: true }, web: true };
        assert_eq!(lacking("all", all), Vec::<String>::new());
        let mysql = BuiltIn { drivers: Drivers { mysql: true, ..drivers }, web: true };
        assert_eq!(lacking("all", mysql).len(), 2, "{:?}", lacking("all", mysql));
    }
    /// With whatever features the test is built (`.ci/features`).
    #[test]
    fn a_config_that_needs_what_this_program_lacks_is_a_fault_of_the_node_and_of_no_other() {
        let cluster = cluster();
        let found = check_apps(&cluster, || vec![App::new("a")]);
        let found: Vec<_> = found.iter().filter(|found| found.fault).collect();
        assert!(found.iter().all(|found| found.key == "all"), "{found:?}");
        let found: Vec<_> = found.iter().map(|found| found.found.clone()).collect();
        assert_eq!(found, lacking("all", BuiltIn::HERE));
        let here = [
            cfg!(feature = "mysql"),
            cfg!(feature = "postgres"),
            cfg!(feature = "memcached"),
            cfg!(feature = "web"),
        ];
        assert_eq!(found.len(), here.iter().filter(|here| !**here).count());
    }
}

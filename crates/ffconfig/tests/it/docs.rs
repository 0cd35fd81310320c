//! `docs/config.md` says what the code does: its tables, its example and its faults are checked here.

use ffconfig::schema;

use crate::parsed;

const PAGE: &str = include_str!("../../../../docs/config.md");

/// The code block of the page that follows the comment `<!-- NAME -->`.
fn block(name: &str) -> &'static str {
    block_of(PAGE, name)
}

fn block_of(page: &'static str, name: &str) -> &'static str {
    let marker = format!("<!-- {name} -->\n```");
    let after = page.split_once(&marker).and_then(|(_, after)| after.split_once('\n'));
    let body = after.and_then(|(_, body)| body.split_once("```"));
    body.unwrap_or_else(|| panic!("no block {name}")).0
}

#[test]
fn the_page_has_every_key_as_the_schema_has_it() {
    for section in schema() {
        let heading = match section.place {
            "" => "### The top".to_owned(),
            place => format!("### `{place}`"),
        };
        let expected =
            format!("{heading}\n\n{}\n\nOn `/reload`: {}\n", section.table().trim_end(), section.reload);
        assert!(PAGE.contains(&expected), "docs/config.md does not have this:\n\n{expected}");
    }
}

#[test]
fn the_example_of_the_page_loads_without_a_warning() {
    let loaded = parsed(block("example")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.warnings, []);
    let names: Vec<&str> = loaded.cluster.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["gate", "net", "game.1", "game.2", "web"]);
}

#[test]
fn the_layers_of_the_page_about_security_load_without_a_warning() {
    let servers = block_of(include_str!("../../../../docs/security.md"), "layers");
    let loaded = parsed(&crate::with_servers(servers)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.warnings, []);
    let bank = loaded.cluster.node("bank").unwrap();
    assert_eq!(bank.rights.call.as_ref().unwrap().len(), 0);
}

#[test]
fn nine_faults_are_reported_in_one_run_as_the_page_shows() {
    let error = parsed(block("faulty")).unwrap_err();
    assert_eq!(format!("{error}\n"), block("faults"));
    assert_eq!(error.faults().len(), 9);
}

//! The benchmarks as users run them: small here, tried for what they count and tell and not for how fast it is.
//! Every sample must be without a fault, on the floors and on a real cluster.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::bins;

/// What a run of `bench` has told: its table for people, its file for programs.
struct Told {
    table: String,
    rows: Vec<Value>,
    samples: Vec<Value>,
}

/// Runs `bench` shortly, whatever else the machine does. Fails when a sample or a row has a fault.
fn bench(subcommand: &[&str]) -> Result<Told> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("out.json");
    let mut command = Command::new(bins::folder()?.join("bench"));
    // Nothing is taken again because other tests run beside it.
    command.args(subcommand).args(["--runs", "1", "--secs", "0.2", "--warm", "0.1", "--quiet", "1000"]);
    // A measurement that runs elsewhere on this machine is not waited for.
    command.arg("--json").arg(&path).env("BENCH_LOCK", folder.path().join("lock")).stdin(Stdio::null());
    let output = command.output().context("bench")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{subcommand:?}: {}\n{said}", output.status);

    let all: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    ensure!(all["arguments"][0] == subcommand[0], "which arguments? {all:#}");
    ensure!(all["unix_s"].as_u64() > Some(0) && all["machine"]["cpus"].as_u64() > Some(0), "{all:#}");
    let list = |key: &str| all[key].as_array().cloned().with_context(|| format!("no {key} in {all:#}"));
    let (rows, samples) = (list("rows")?, list("samples")?);
    for sample in &samples {
        let outcome = &sample["outcome"];
        for fault in ["errors", "misordered", "wrong", "missing", "closed"] {
            ensure!(outcome[fault] == 0, "{fault} in {sample:#}\n{said}");
        }
        ensure!(outcome["answers"].as_u64() > Some(0), "nothing was measured: {sample:#}\n{said}");
    }
    for row in &rows {
        ensure!(row["faults"] == json!([]) && row["runs"] == 1, "{row:#}\n{said}");
        for number in [&row["per_sec"]["median"], &row["p50_us"], &row["p99_us"], &row["server_us"]["median"]]
        {
            ensure!(number.as_f64() > Some(0.0), "{row:#}\n{said}");
        }
    }
    Ok(Told { table: String::from_utf8(output.stdout)?, rows, samples })
}

fn systems(list: &[Value]) -> Vec<&str> {
    list.iter().filter_map(|one| one["system"].as_str()).collect()
}

/// The table's cells under a head; one for each row of the file.
fn column(told: &Told, head: &str) -> Result<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = told.table.lines().filter(|line| line.starts_with('|')).map(cells);
    let heads = lines.next().context("no table")?;
    let at = heads.iter().position(|h| h == head).with_context(|| format!("no {head} in {heads:?}"))?;
    let found: Vec<String> = lines.skip(1).filter_map(|cells| cells.get(at).cloned()).collect();
    ensure!(found.len() == told.rows.len(), "{} rows in the file:\n{}", told.rows.len(), told.table);
    Ok(found)
}

/// Runs `bench compare` with the programs of this run as both releases, shortly; its exit code and its table.
fn against_itself(within: &str) -> Result<(Option<i32>, String)> {
    let lock = tempfile::NamedTempFile::new()?;
    let folder = bins::folder()?;
    let mut command = Command::new(folder.join("bench"));
    command.args(["compare", "--systems", "floor-epoll,ours-forward", "--points", "3:1", "--bodies", "64"]);
    command.args(["--runs", "2", "--secs", "0.2", "--warm", "0.1", "--quiet", "1000", within, "--against"]);
    let output = command.arg(folder).env("BENCH_LOCK", lock.path()).stdin(Stdio::null()).output()?;
    let said = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code(), said))
}

#[test]
fn two_releases_are_measured_in_turn_and_the_exit_code_says_whether_the_new_one_is_good_enough() -> Result<()>
{
    let (code, told) = against_itself("--within=10000")?;
    ensure!(code == Some(0), "{told}");
    let rows: Vec<&str> = told.lines().filter(|line| line.starts_with("| (3,1)")).collect();
    let [row] = rows[..] else { anyhow::bail!("one row, of our system:\n{told}") };
    ensure!(
        row.contains("| ours-forward | 2 ") && row.contains("met: req/s") && row.contains("met: CPU"),
        "{row}"
    );
    let taken = told.lines().filter_map(|line| line.split_once(" B "));
    let order: Vec<&str> = taken.filter_map(|(_, rest)| rest.split(' ').next()).collect();
    assert_eq!(order, ["old", "new", "new", "old"], "{told}");

    let (code, told) = against_itself("--within=-100000")?;
    ensure!(code == Some(1) && told.contains("2 of 2 bounds are missed"), "{code:?}: {told}");
    Ok(())
}

#[test]
fn a_broadcast_that_is_measured_reaches_every_member_and_costs_net_one_frame() -> Result<()> {
    let told = bench(&["broadcast", "--conns", "50", "--window", "2"])?;
    assert_eq!(systems(&told.samples), ["floor-broadcast", "ours-broadcast"]);
    assert_eq!(systems(&told.rows), column(&told, "system")?);
    for sample in &told.samples {
        let outcome = &sample["outcome"];
        assert_eq!(outcome["good"].as_u64(), outcome["sent"].as_u64().map(|sent| sent * 50), "{sample:#}");
    }
    let frames: Vec<&Value> = told.rows.iter().map(|row| &row["frames_each"]).collect();
    assert_eq!(frames, [&Value::Null, &json!(1.0)]);
    assert_eq!(column(&told, "frames/broadcast")?, ["-", "1.00"]);
    assert!(told.rows[1]["rate_ratio"].as_f64() > Some(0.0), "{:#}", told.rows[1]);
    Ok(())
}

#[test]
fn clients_that_are_measured_come_log_in_ask_and_go() -> Result<()> {
    let told = bench(&["logins", "--conns", "10", "--requests", "3"])?;
    assert_eq!(systems(&told.samples), ["floor-epoll", "ours-forward", "ours-login"]);
    assert_eq!(systems(&told.rows), column(&told, "system")?);
    assert_eq!(column(&told, "messages")?, ["4", "4", "login + 3"]);
    for sample in &told.samples {
        assert_eq!(sample["outcome"]["good"], sample["outcome"]["sent"], "{sample:#}");
    }
    let login = &told.rows[2];
    for ratio in ["rate_to_floor", "server_to_floor", "server_to_forward"] {
        assert!(login[ratio].as_f64() > Some(0.0), "{ratio} in {login:#}");
    }
    Ok(())
}

#[test]
fn the_forwarded_path_is_compared_over_tcp_and_over_websocket() -> Result<()> {
    let compare =
        ["compare", "--systems", "ours-forward,ours-websocket", "--points", "5:2", "--bodies", "64,1024"];
    let told = bench(&compare)?;
    assert_eq!(systems(&told.samples), ["ours-forward", "ours-websocket", "ours-forward", "ours-websocket"]);
    assert_eq!(systems(&told.rows), column(&told, "system")?);
    assert_eq!(column(&told, "body")?, ["64", "64", "1024", "1024"]);
    for row in told.rows.iter().filter(|row| row["system"] == "ours-websocket") {
        assert!(row["rate_ratio"]["ours-forward"].as_f64() > Some(0.0), "{row:#}");
    }
    Ok(())
}

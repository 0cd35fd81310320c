//! Connections that do nothing: opened, later used once, and held while somebody looks at the memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::client::{Answer, Client, Template};
use crate::cli::LoadArgs;
use crate::machine;
use crate::system::Running;

const READY: &str = "READY";
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// `bench load --idle`: each line on stdin is answered with the next step.
pub(super) fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let clients =
        (0..args.conns).map(|n| Client::connect(args.addr, n, false)).collect::<anyhow::Result<Vec<_>>>();
    let mut clients = clients?;
    println!("{READY}");
    wait_for_word()?;
    let template = Template::new(args.command, args.error_command, args.body);
    let mut buffer = vec![0; 64 * 1024];
    // In hundreds, as players would come, not all at once.
    for some in clients.chunks_mut(100) {
        use_once(some, &template, &mut buffer)?;
    }
    println!("{READY}");
    wait_for_word()
}

fn wait_for_word() -> anyhow::Result<()> {
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Lets each client send one request, and waits for the answers.
pub(super) fn use_once(clients: &mut [Client], template: &Template, buffer: &mut [u8]) -> anyhow::Result<()> {
    for client in &mut *clients {
        client.request(template, 0);
        ensure!(!client.flush(), "a socket does not take one request");
    }
    let end = Instant::now() + ANSWER_PATIENCE;
    for client in clients {
        while client.flight.outstanding() > 0 {
            let mut fault = None;
            client.read(template, buffer, |_, answer| match answer {
                Answer::Good(_) | Answer::Overtook(_) => {}
                Answer::Error(body) => fault = Some(String::from_utf8_lossy(body).into_owned()),
                Answer::Wrong => fault = Some("not its request's body".into()),
            })?;
            ensure!(fault.is_none(), "an answer was an error: {}", fault.unwrap_or_default());
            ensure!(client.open, "the server closed an idle connection");
            ensure!(Instant::now() < end, "no answer in {ANSWER_PATIENCE:?}");
            if client.flight.outstanding() > 0 {
                machine::pause(Duration::from_micros(200));
            }
        }
    }
    Ok(())
}

/// The process with the idle connections, as the bench sees it; they close when this is dropped.
pub(crate) struct Idlers {
    child: Child,
    words: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Idlers {
    /// Opens `conns` connections to a system.
    pub(crate) fn open(running: &Running, conns: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["load", "--idle", "--addr", &running.addr.to_string()]);
        command.args(["--conns", &conns.to_string(), "--command", &running.command.to_string()]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the idle clients")?;
        let words = child.stdin.take().context("their input")?;
        let answers = BufReader::new(child.stdout.take().context("their output")?);
        let mut idlers = Self { child, words, answers };
        idlers.wait_ready()?;
        Ok(idlers)
    }

    /// Lets each send one request and get its answer.
    pub(crate) fn use_once(&mut self) -> anyhow::Result<()> {
        self.words.write_all(b"\n")?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let mut line = [0; READY.len() + 1];
        self.answers.read_exact(&mut line).context("the idle clients ended")
    }
}

impl Drop for Idlers {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

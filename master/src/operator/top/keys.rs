//! The keys that `master top` obeys, out of the bytes that a terminal sends.

use std::io::Read;

use tokio::sync::mpsc;

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Interrupt,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Sort,
}

/// The keys of standard input, until it ends. The thread that reads them ends with the process.
pub(super) fn of_stdin() -> mpsc::UnboundedReceiver<Key> {
    let (to, keys) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok(n @ 1..) = std::io::stdin().lock().read(&mut buffer) {
            for key in parse(buffer.get(..n).unwrap_or_default()) {
                if to.send(key).is_err() {
                    return;
                }
            }
        }
    });
    keys
}

/// The keys that bytes stand for. A terminal sends the bytes of a key in one piece. Pure.
fn parse(mut bytes: &[u8]) -> Vec<Key> {
    const SEQUENCES: [(&[u8], Key); 12] = [
        (b"\x1b[A", Key::Up),
        (b"\x1bOA", Key::Up),
        (b"\x1b[B", Key::Down),
        (b"\x1bOB", Key::Down),
        (b"\x1b[5~", Key::PageUp),
        (b"\x1b[6~", Key::PageDown),
        (b"\x1b[H", Key::Home),
        (b"\x1bOH", Key::Home),
        (b"\x1b[1~", Key::Home),
        (b"\x1b[F", Key::End),
        (b"\x1bOF", Key::End),
        (b"\x1b[4~", Key::End),
    ];
    let mut keys = Vec::new();
    while let Some((&first, rest)) = bytes.split_first() {
        if let Some((sequence, key)) = SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence)) {
            keys.push(*key);
            bytes = bytes.get(sequence.len()..).unwrap_or_default();
            continue;
        }
        keys.extend(match first {
            b'q' | b'Q' => Some(Key::Quit),
            // A whole escape sequence that means nothing here is not read as its letters.
            0x1b if !rest.is_empty() => return keys,
            0x1b => Some(Key::Quit),
            0x03 => Some(Key::Interrupt),
            b'k' => Some(Key::Up),
            b'j' => Some(Key::Down),
            b'b' => Some(Key::PageUp),
            b' ' => Some(Key::PageDown),
            b'g' => Some(Key::Home),
            b'G' => Some(Key::End),
            b's' => Some(Key::Sort),
            _ => None,
        });
        bytes = rest;
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_letters_and_sequences() {
        assert_eq!(parse(b"jk\x1b[Aq"), [Key::Down, Key::Up, Key::Up, Key::Quit]);
        assert_eq!(parse(b"\x1b[5~\x1b[6~"), [Key::PageUp, Key::PageDown]);
        assert_eq!(parse(b"\x1b"), [Key::Quit]);
        assert_eq!(parse(b"\x03"), [Key::Interrupt]);
        // F5, which means nothing.
        assert_eq!(parse(b"\x1b[15~"), []);
        assert_eq!(parse("ä".as_bytes()), []);
    }
}

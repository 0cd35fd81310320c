//! The HTTP connections of a node, as a hand-over knows them: those of [`ffhttp`], and in a program without the feature `web`
//! none, which the compiler knows as well.

#[cfg(feature = "web")]
pub(crate) use ffhttp::{Front, Handoff, Retirement};

#[cfg(not(feature = "web"))]
pub(crate) use without::{Front, Handoff, Retirement};

#[cfg(not(feature = "web"))]
mod without {
    use std::io;
    use std::net::TcpStream;

    use tokio::time::Instant;

    /// A connection between two requests, and what was read of it; none comes.
    pub(crate) type Handoff = (TcpStream, Vec<u8>);

    /// A front: a program without the web server makes none.
    #[derive(Debug)]
    pub(crate) enum Front {}

    /// A retirement: without a front there is none.
    #[derive(Debug)]
    pub(crate) enum Retirement {}

    impl Front {
        pub(crate) fn retire(&self, _until: Instant) -> Retirement {
            match *self {}
        }

        pub(crate) fn resume(&self) {
            match *self {}
        }

        pub(crate) fn adopt(&self, _stream: TcpStream, _unread: Vec<u8>) -> io::Result<()> {
            match *self {}
        }

        pub(crate) async fn end(&self, _until: Instant) {
            match *self {}
        }
    }

    impl Retirement {
        pub(crate) async fn next(&mut self) -> Option<Handoff> {
            match *self {}
        }
    }
}

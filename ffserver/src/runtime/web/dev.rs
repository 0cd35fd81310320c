//! The dev notice, on the pages of a game that is written: the compiler's errors, as `master dev` tells them. Nothing of it is there
//! for a node that runs without `master dev`.

use std::io::Cursor;
use std::path::PathBuf;

use rocket::fairing::{Fairing, Info, Kind};
use rocket::http::{ContentType, Header, Method};
use rocket::{Request, Response, Route, State};

use super::Insider;

/// A longer notice is none of `master dev`.
const NOTICE_BYTES_MAX: u64 = 1024 * 1024;
/// A larger page is left as it is.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Behind the end of a page, where browsers take it as its last element.
const TAG: &[u8] = b"\n<script src=\"/ff-dev/page.js\"></script>\n";

/// The file in which `master dev` keeps what it says to the pages of the game.
#[derive(Debug, Clone)]
pub(crate) struct DevNotice(PathBuf);

impl DevNotice {
    pub(crate) fn in_file(path: PathBuf) -> Self {
        Self(path)
    }
}

/// What the script of a page asks for.
pub(super) fn routes() -> Vec<Route> {
    rocket::routes![notice, script]
}

/// What `master dev` says now. It has lines of the game's sources, so it is for this host alone.
#[rocket::get("/ff-dev/notice")]
async fn notice(insider: Insider, notice: &State<DevNotice>) -> Option<(ContentType, Vec<u8>)> {
    use rocket::tokio::fs;
    let small = fs::metadata(&notice.0).await.ok().filter(|file| file.len() <= NOTICE_BYTES_MAX);
    small.filter(|_| insider.0)?;
    Some((ContentType::JSON, fs::read(&notice.0).await.ok()?))
}

#[rocket::get("/ff-dev/page.js")]
fn script(insider: Insider) -> Option<(ContentType, &'static str)> {
    insider.0.then_some((ContentType::JavaScript, include_str!("dev.js")))
}

/// Adds the script to every page that a browser on this host opens, whoever has written it.
pub(super) struct OnEveryPage;

#[rocket::async_trait]
impl Fairing for OnEveryPage {
    fn info(&self) -> Info {
        Info { name: "master dev", kind: Kind::Response }
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        if !is_page(request, response) || !request.guard::<Insider>().await.succeeded().is_some_and(|it| it.0)
        {
            return;
        }
        // One that is written while it is read has no size.
        if response.body_mut().size().await.is_none_or(|size| size > PAGE_BYTES_MAX) {
            return;
        }
        let Ok(mut page) = response.body_mut().to_bytes().await else { return };
        page.extend_from_slice(TAG);
        // Another page of the same name may come a moment later.
        response.set_header(Header::new("Cache-Control", "no-store"));
        response.set_sized_body(page.len(), Cursor::new(page));
    }
}

/// Whether a browser, or who does not say what it is, opens a page: a part of one that a script asks for stays as it is.
fn is_page(request: &Request<'_>, response: &Response<'_>) -> bool {
    let opened =
        request.headers().get_one("Sec-Fetch-Dest").is_none_or(|to| matches!(to, "document" | "iframe"));
    let html = response.content_type().is_some_and(|kind| kind.is_html());
    opened && html && request.method() == Method::Get && !response.headers().contains("Content-Encoding")
}

#[cfg(test)]
mod tests {
    use rocket::local::asynchronous::{Client, LocalResponse};
    use rocket::response::content::RawHtml;

    use super::*;

    #[rocket::get("/")]
    fn page() -> RawHtml<&'static str> {
        RawHtml("<html><p>play</p></html>")
    }

    #[rocket::get("/data")]
    fn data() -> (ContentType, &'static str) {
        (ContentType::JSON, "{}")
    }

    #[tokio::test]
    async fn the_script_is_on_pages_that_a_browser_here_opens_and_on_nothing_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"title":"broken"}"#).unwrap();
        let game = rocket::build()
            .manage(DevNotice::in_file(file.path().to_owned()))
            .mount("/", rocket::routes![page, data])
            .mount("/", routes())
            .attach(OnEveryPage);
        let client = Client::untracked(game).await.unwrap();
        let get = async |path: &'static str, from: &str, header: Option<(&'static str, &'static str)>| {
            let mut request = client.get(path).remote(format!("{from}:9").parse().unwrap());
            if let Some((name, value)) = header {
                request.add_header(Header::new(name, value));
            }
            LocalResponse::into_string(request.dispatch().await).await.unwrap_or_default()
        };
        let (here, there) = ("127.0.0.1", "192.0.2.1");
        let opened = get("/", here, Some(("Sec-Fetch-Dest", "document"))).await;
        assert_eq!(opened, "<html><p>play</p></html>\n<script src=\"/ff-dev/page.js\"></script>\n");
        assert_eq!(get("/", here, None).await, opened);
        for plain in [
            get("/", here, Some(("Sec-Fetch-Dest", "empty"))).await,
            get("/", here, Some(("Host", "evil.example"))).await,
            get("/", there, None).await,
        ] {
            assert_eq!(plain, "<html><p>play</p></html>");
        }
        assert_eq!(get("/data", here, None).await, "{}");
        assert_eq!(get("/ff-dev/notice", here, None).await, r#"{"title":"broken"}"#);
        assert!(get("/ff-dev/page.js", here, None).await.contains("textContent"));
        for hidden in ["/ff-dev/notice", "/ff-dev/page.js"] {
            assert!(!get(hidden, there, None).await.contains("broken"));
            assert!(!get(hidden, there, None).await.contains("textContent"));
        }
    }
}

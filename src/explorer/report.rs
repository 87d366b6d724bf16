//! One file that shows a story without any server: for a bug report, or for what a CI run leaves behind.

use super::server::Assets;
use super::story::Story;

/// How far from its story a reader of a report can go.
pub const AROUND: usize = 2;

/// Where the page's data goes.
const PLACE: &str = "\"TENURE-STORY\"";

/// The file. Its own policy forbids every load, and no text of the story can end the data.
///
/// # Panics
///
/// If the page that was built in has no place for a story.
//= SPEC EXPLORER-5
pub fn html(story: &Story) -> String {
    let page = Assets::get("report.html").expect("the page is built in");
    let page = String::from_utf8_lossy(&page.data).into_owned();
    assert_eq!(page.matches(PLACE).count(), 1, "the page has one place for a story");
    let json = serde_json::to_string(story).expect("a story is plain data");
    let json = json
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    page.replacen(PLACE, &json, 1)
}

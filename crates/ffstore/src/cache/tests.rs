//! The in-process cache through the public API, time paused, and what a start without memcached says.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn config(urls: &[&str]) -> ffconfig::Memcached {
    ffconfig::Memcached {
        urls: urls.iter().map(ToString::to_string).collect(),
        prefix: "test".into(),
        timeout: Duration::from_millis(300),
    }
}

fn line(error: CacheError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[tokio::test(start_paused = true)]
async fn a_value_lives_as_long_as_it_was_told() {
    let cache = Cache::default();
    cache.set("a", "1", Duration::from_millis(1500)).await.unwrap();
    cache.set("b", "", Life::Forever).await.unwrap();
    tokio::time::advance(Duration::from_millis(1999)).await;
    assert_eq!(cache.get("a").await.unwrap().unwrap(), "1");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(cache.get("a").await.unwrap(), None);
    tokio::time::advance(Duration::from_secs(1_000_000)).await;
    assert_eq!(cache.get("b").await.unwrap().unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn touch_gives_a_new_life() {
    let cache = Cache::default();
    assert!(!cache.touch("a", MINUTE).await.unwrap());
    cache.set("a", "1", Duration::from_secs(1)).await.unwrap();
    assert!(cache.touch("a", MINUTE).await.unwrap());
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(cache.get("a").await.unwrap().is_some());
}

#[tokio::test]
async fn of_many_claims_one_wins_and_no_update_is_lost() {
    let cache = Cache::default();
    assert!(cache.add("claim", "1", MINUTE).await.unwrap());
    assert!(!cache.add("claim", "2", MINUTE).await.unwrap());
    assert!(cache.delete("claim").await.unwrap());
    assert!(!cache.delete("claim").await.unwrap());
    for wanted in 1..=3 {
        let longer = |old: Option<&Bytes>| Bytes::from(vec![b'x'; old.map_or(0, Bytes::len) + 1]);
        assert_eq!(cache.update("list", MINUTE, longer).await.unwrap().len(), wanted);
    }
    assert_eq!(cache.incr("n", 2, MINUTE).await.unwrap(), 2);
    assert_eq!(cache.incr("n", 2, MINUTE).await.unwrap(), 4);
    assert_eq!(cache.get("n").await.unwrap().unwrap(), "4");
}

#[tokio::test]
async fn its_errors_say_what_is_wrong() {
    let cache = Cache::in_process(1000);
    let error = cache.set("k", [0; 1000], MINUTE).await.unwrap_err();
    assert_eq!(line(error), "a value of 1000 bytes is too large for the cache");
    cache.set("k", "text", MINUTE).await.unwrap();
    assert_eq!(line(cache.incr("k", 1, MINUTE).await.unwrap_err()), "the value is not a number");
}

#[tokio::test]
async fn a_start_without_memcached_names_the_key_and_the_server() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = silent.local_addr().unwrap().to_string();
    assert_eq!(
        line(Cache::connect(&config(&[&server])).await.unwrap_err()),
        format!("`memcached.urls`: {server} cannot be reached (tried for 300ms): no answer")
    );
    drop(silent);
    assert_eq!(
        line(Cache::connect(&config(&[&server])).await.unwrap_err()),
        format!(
            "`memcached.urls`: {server} cannot be reached (tried for 300ms): Connection refused (os error 111)"
        )
    );
    assert_eq!(line(Cache::connect(&config(&[])).await.unwrap_err()), "`memcached.urls`: there is no server");
}

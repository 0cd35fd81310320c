//! The game as its players see it: every node in this process, with a database of its own.

use ffserver::testing::Cluster;

#[tokio::test]
async fn two_players_click_and_see_what_both_have_done() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::start("config.json", own_game::apps).await?;
    let (mut ann, mut bob) = (cluster.client("net")?, cluster.client("net")?);
    assert_eq!(ann.call(1, "asdfe").await?, "asdfe");
    assert_eq!(ann.call(2, "ann").await?, r#"{"total":1,"mine":1}"#);
    assert_eq!(bob.call(2, "bob").await?, r#"{"total":2,"mine":1}"#);
    assert_eq!(ann.call(2, "ann").await?, r#"{"total":3,"mine":2}"#);
    assert!(ann.call(2, "").await.is_err());
    assert_eq!(bob.push(10).await?, "1");
    assert_eq!(bob.call(3, "").await?, "3");
    Ok(cluster.stop().await?)
}

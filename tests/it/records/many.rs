//! Records written behind: many at once, with some that are refused or taken away, and what a dead node leaves.

use super::*;

account!(Many, "account_many");

pub(super) async fn a_thousand_hot_records_reach_the_database_and_are_released(place: Place) -> Result<()> {
    let db = place.make_table::<Many>().await?;
    let mut tx = db.begin().await?;
    for n in 0..1000_i64 {
        let row = [Value::Text(format!("a{n}")), Value::Text(format!("g{}", n % 10))];
        tx.execute("INSERT INTO account_many (name, guild, coins) VALUES (?, ?, 0)", &row).await?;
    }
    tx.commit().await?;
    let (node, accounts) = place.node::<Many>().await?;
    for _ in 0..3 {
        let mut writers = JoinSet::new();
        for part in 0..20 {
            let accounts = accounts.clone();
            writers.spawn(async move {
                for n in 0..50 {
                    let key = format!("a{}", part * 50 + n);
                    accounts.update(&key, Save::within_ms(100), |account| account.coins += 1).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer??;
        }
    }
    assert_eq!(accounts.by_owner(&"g3".to_owned()).await?.iter().map(|a| a.coins).sum::<i64>(), 300);
    wait::until("all of it is in the database", async || {
        let rows =
            db.fetch_all("SELECT CAST(SUM(coins) AS CHAR(20)) AS n FROM account_many", &[]).await.unwrap();
        let sum: String = rows[0].get("n").unwrap();
        if sum.trim() == "3000" { Ok(()) } else { Err(sum) }
    })
    .await?;
    wait::until("idle records are released", async || {
        match node.counters().into_iter().find(|(name, _)| name == "record_held") {
            None => Ok(()),
            held => Err(held),
        }
    })
    .await?;
    close(node).await;
    Ok(())
}

#[derive(Record, Debug, Default, Clone, PartialEq)]
#[record(table = "item_together")]
struct Together {
    #[record(key)]
    id: i32,
    level: u32,
    weight: f64,
    bound: bool,
    label: String,
    data: Vec<u8>,
    number: Option<i32>,
    share: Option<f64>,
    sealed: Option<bool>,
    text: Option<String>,
    blob: Option<Vec<u8>>,
}

pub(super) async fn many_records_of_every_type_are_written_behind_together(place: Place) -> Result<()> {
    let db = place.make_table::<Together>().await?;
    let (one, items) = place.node::<Together>().await?;
    let ids: Vec<i32> = (0..100).collect();
    for id in ids.clone() {
        let (label, data) = (format!("'{id}\"?"), vec![0, id as u8]);
        items.insert(Together { id, label, data, ..Together::default() }).await?;
    }
    // What may be NULL is NULL in all rows of the first round, in some of the next, then in none.
    for round in 0..3_u32 {
        let mut writers = JoinSet::new();
        for id in ids.clone() {
            let items = items.clone();
            let some = round == 2 || (round == 1 && id % 2 == 1);
            writers.spawn(async move {
                let change = |item: &mut Together| {
                    (item.level, item.weight, item.bound) = (u32::MAX - round, -0.25, round != 1);
                    item.label = format!("\u{1f600}?{id}\\");
                    item.data = vec![round as u8; id as usize];
                    item.number = some.then_some(i32::MIN);
                    item.share = some.then_some(1.5);
                    item.sealed = some.then_some(true);
                    item.text = some.then(|| format!("ü{id}"));
                    item.blob = some.then(|| vec![255, 0]);
                };
                items.update(&id, Save::within_ms(20), change).await
            });
        }
        while let Some(written) = writers.join_next().await {
            written??;
        }
        let mine = items.get_many(&ids).await?;
        wait::until("all of them are in the database", async || {
            let rows = db.fetch_all("SELECT level FROM item_together", &[]).await.unwrap();
            let old = rows.iter().filter(|row| row.at(0).ok() != Some(i64::from(u32::MAX - round))).count();
            if old == 0 { Ok(()) } else { Err(format!("{old} are as they were")) }
        })
        .await?;
        let (other, elsewhere) = place.node::<Together>().await?;
        assert_eq!(elsewhere.get_many(&ids).await?, mine, "round {round}");
        close(other).await;
    }
    // The same when each is written by itself, on whatever connection.
    for number in [None, Some(7), None, Some(-7)] {
        for id in &ids[..20] {
            items
                .update(id, Save::Durable, |item| (item.number, item.level) = (number, item.level - 1))
                .await?;
        }
        let row = db.fetch_all("SELECT number FROM item_together WHERE id = 7", &[]).await?;
        assert_eq!(row[0].at::<Option<i64>>(0)?, number.map(i64::from));
    }
    close(one).await;
    Ok(())
}

account!(Apart, "account_apart");

pub(super) async fn a_row_that_was_taken_away_keeps_no_other_from_being_written(place: Place) -> Result<()> {
    let db = place.make_table::<Apart>().await?;
    let (node, accounts) = place.node::<Apart>().await?;
    let names: Vec<String> = (0..40).map(|n| format!("a{n}")).collect();
    for name in &names {
        accounts.insert(Apart::new(name, "g", 0)).await?;
    }
    let write = async |coins: i64, later: Save| {
        let mut writers = JoinSet::new();
        for name in names.clone() {
            let accounts = accounts.clone();
            writers.spawn(async move { accounts.update(&name, later, |a| a.coins = coins).await });
        }
        writers.join_all().await.into_iter().collect::<Result<(), _>>()
    };
    write(1, Save::within_ms(600_000)).await?;
    db.execute("UPDATE account_apart SET holder = '', coins = 50 WHERE name = 'a7'", &[]).await?;
    write(2, Save::within_ms(1)).await?;
    wait::until("the others are in the database", async || {
        let rows = db.fetch_all("SELECT name FROM account_apart WHERE coins = 2", &[]).await.unwrap();
        if rows.len() == 39 { Ok(()) } else { Err(rows.len()) }
    })
    .await?;
    wait::until("it is counted", async || {
        match node.counters().into_iter().find(|(name, _)| name == "record_fenced") {
            Some((_, 1)) => Ok(()),
            other => Err(other),
        }
    })
    .await?;
    assert_eq!(coins(&db, "account_apart", "a7").await, 50);
    close(node).await;
    Ok(())
}

account!(Cut, "account_cut");

/// A power cut takes what was written in the last second from the journal, and nothing from the database.
pub(super) async fn holds_that_a_power_cut_took_from_the_journal_are_ended_by_who_finds_it(
    place: Place,
) -> Result<()> {
    let db = place.make_table::<Cut>().await?;
    let (dead, accounts) = place.node::<Cut>().await?;
    let later = Save::within_ms(600_000);
    for name in ["ann", "bob", "cid", "dan"] {
        accounts.insert(Cut::new(name, "g", 100)).await?;
    }
    let (ann, bob, dan) = ("ann".to_owned(), "bob".to_owned(), "dan".to_owned());
    for name in [&ann, &bob, &"cid".to_owned()] {
        accounts.update(name, later, |account| account.coins += 1).await?;
    }
    // A node that lives, with its journal elsewhere.
    let elsewhere = Place::of(Some(place.url.clone()), false).unwrap();
    let (living, its_accounts) = elsewhere.node::<Cut>().await?;
    its_accounts.update(&dan, later, |dan| dan.coins += 1).await?;
    drop((accounts, dead));
    edit_journal(&place.folder.path().join("data"), |file| {
        file.head.boot = "an earlier one".into();
        // The table, and ann with what was written to her.
        file.entries.truncate(3);
    })
    .await?;

    let (node, accounts) = place.node::<Cut>().await?;
    assert_eq!(coins(&db, "account_cut", "ann").await, 101);
    let held = db.fetch_all("SELECT name FROM account_cut WHERE holder <> ''", &[]).await?;
    assert_eq!(held.iter().map(|row| row.at::<String>(0)).collect::<Result<Vec<_>, _>>()?, ["dan"]);
    accounts.update(&bob, Save::Durable, |bob| bob.coins += 5).await?;
    assert_eq!(coins(&db, "account_cut", "bob").await, 105);
    assert_eq!(journals(place.folder.path()), [""; 0]);
    close(living).await;
    assert_eq!(coins(&db, "account_cut", "dan").await, 101);
    close(node).await;
    Ok(())
}

account!(Late, "account_late");

/// A node is killed while its claim of a row waits at the server for somebody's lock; the server goes on with it.
pub(super) async fn a_hold_that_comes_after_the_end_of_its_node_is_ended(place: Place) -> Result<()> {
    let db = place.make_table::<Late>().await?;
    if db.dialect() == Dialect::Sqlite {
        // Its statements end with the process.
        return Ok(());
    }
    let (dead, accounts) = place.node::<Late>().await?;
    let ann = "ann".to_owned();
    accounts.insert(Late::new("ann", "g", 1)).await?;
    accounts.update(&ann, Save::within_ms(600_000), |ann| ann.coins += 1).await?;
    let holder = async || -> Result<String> {
        Ok(db.fetch_all("SELECT holder FROM account_late", &[]).await?[0].at(0)?)
    };
    let claimed = holder().await?;
    drop((accounts, dead));
    // The table, and that it was about to hold ann.
    edit_journal(&place.folder.path().join("data"), |file| file.entries.truncate(2)).await?;
    let (node, accounts) = place.node::<Late>().await?;
    assert_eq!(holder().await?, "");
    db.execute("UPDATE account_late SET holder = ?", &args![claimed]).await?;
    wait::until("the late hold is ended", async || match holder().await {
        Ok(holder) if holder.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    accounts.update(&ann, Save::Durable, |ann| ann.coins += 5).await?;
    close(node).await;
    Ok(())
}

/// Changes the only journal when its node has left it.
async fn edit_journal(data_dir: &Path, change: impl FnOnce(&mut ffstore::rows::journal::File)) -> Result<()> {
    let path = wait::until("the journal is left", async || {
        let mut files: Vec<_> =
            std::fs::read_dir(data_dir).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "journal"));
        let [path] = &files[..] else { return Err(format!("{files:?}")) };
        std::fs::File::open(path).unwrap().try_lock().map_err(|e| e.to_string())?;
        Ok(path.clone())
    })
    .await?;
    let mut file = ffstore::rows::journal::read(&std::fs::read(&path)?)?;
    assert!(!file.torn && !file.head.boot.is_empty());
    change(&mut file);
    let mut bytes = Vec::new();
    file.head.write(&mut bytes);
    file.entries.iter().for_each(|entry| entry.write(&file.head, &mut bytes));
    Ok(std::fs::write(path, bytes)?)
}

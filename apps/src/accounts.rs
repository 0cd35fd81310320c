//! Accounts with a login, in a table: what docs/data.md teaches by. On SQLite by itself, on MariaDB or
//! PostgreSQL and memcached by the config (examples/accounts).

use ffserver::prelude::*;
use ffserver::record::RecordError;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::sync::Semaphore;

/// As slow as is bearable: a stolen table is tried out so slowly.
const PASSWORD_ROUNDS: u32 = 100_000;
const NAME_CHARS_MAX: usize = 40;
/// Passwords that are hashed at once.
const HASHES_MAX: usize = 2;
const SALT_BYTES: usize = 16;

/// A row of the table `account`; examples/accounts/migrations makes it.
#[derive(Record, Clone, PartialEq)]
#[record(table = "account")]
struct Account {
    #[record(key)]
    name: String,
    #[record(owner)]
    guild: String,
    salt: Vec<u8>,
    password: Vec<u8>,
    coins: i64,
    logins: i32,
}

/// Who is logged in: the session knows it on every node, and in whatever process goes on with it.
fn name_of(session: &Session) -> Result<String, HandlerError> {
    session.user().ok_or_else(|| HandlerError::new("log in first"))
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
    #[serde(default)]
    guild: String,
}

#[derive(Serialize)]
struct Shown {
    name: String,
    guild: String,
    coins: i64,
    logins: i32,
}

impl From<&Account> for Shown {
    fn from(account: &Account) -> Self {
        let Account { name, guild, coins, logins, .. } = account.clone();
        Self { name, guild, coins, logins }
    }
}

/// The places where passwords are hashed: a thousand logins at once wait in line, and do not take a thousand threads and every
/// processor from the game.
struct Hashing(Semaphore);

impl Hashing {
    /// Off the node's loop: it takes some milliseconds of a processor.
    async fn hash(&self, me: &Node, password: String, salt: Vec<u8>) -> Result<Vec<u8>, HandlerError> {
        // Who waits longer than its deadline is out of the line.
        let _place = self.0.acquire().await?;
        let _timer = me.metrics().section("password");
        let hash =
            move || pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &salt, PASSWORD_ROUNDS);
        Ok(tokio::task::spawn_blocking(hash).await?.to_vec())
    }
}

/// Compares without telling by its time how much is right.
fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    a.len() == b.len() && difference == 0
}

#[net_handle(400)]
async fn register(
    me: Node,
    hashing: State<Hashing>,
    accounts: Table<Account>,
    Json(new): Json<Credentials>,
) -> Result<Json<Shown>, HandlerError> {
    if new.name.is_empty() || new.name.chars().count() > NAME_CHARS_MAX {
        return Err(HandlerError::new(format!("a name has 1 to {NAME_CHARS_MAX} characters")));
    }
    let mut salt = vec![0; SALT_BYTES];
    me.chance().fill(&mut salt)?;
    let password = hashing.hash(&me, new.password, salt.clone()).await?;
    let account = Account { name: new.name, guild: new.guild, salt, password, coins: 100, logins: 0 };
    match accounts.insert(account).await {
        Ok(account) => Ok(Json(Shown::from(&*account))),
        Err(RecordError::Exists { .. }) => Err(HandlerError::new("the name is taken")),
        Err(other) => Err(other.into()),
    }
}

#[net_handle(401)]
async fn login(
    me: Node,
    hashing: State<Hashing>,
    accounts: Table<Account>,
    session: Session,
    Json(who): Json<Credentials>,
) -> Result<Json<Shown>, HandlerError> {
    // The same answer for a wrong name and a wrong password, after the same time: else it would tell which names there are.
    let wrong = || HandlerError::new("wrong name or password");
    let account = accounts.get(&who.name).await?;
    let salt = account.as_ref().map_or_else(|| vec![0; SALT_BYTES], |account| account.salt.clone());
    let given = hashing.hash(&me, who.password, salt).await?;
    if !account.is_some_and(|account| same(&given, &account.password)) {
        return Err(wrong());
    }
    // From here on the account is saved when this client leaves: the one line of it.
    accounts.keep(session.id(), &who.name).await?.ok_or_else(wrong)?;
    let shown = accounts.update(&who.name, Save::within_ms(100), |account| {
        account.logins += 1;
        Shown::from(&*account)
    });
    let shown = shown.await?;
    session.bind(who.name).await?;
    Ok(Json(shown))
}

/// A coin found: in the database within a tenth of a second, together with the next ones.
#[net_handle(402)]
async fn find_coin(accounts: Table<Account>, session: Session) -> Result<Json<i64>, HandlerError> {
    let name = name_of(&session)?;
    let coins = accounts.update(&name, Save::within_ms(100), |account| {
        account.coins += 1;
        account.coins
    });
    Ok(Json(coins.await?))
}

#[derive(Deserialize)]
struct Gift {
    to: String,
    coins: i64,
}

/// Coins for somebody else: both accounts or neither, and in the database before the answer.
#[net_handle(403)]
async fn give(
    accounts: Table<Account>,
    session: Session,
    Json(gift): Json<Gift>,
) -> Result<Json<i64>, HandlerError> {
    let name = name_of(&session)?;
    if gift.coins <= 0 || gift.to == name {
        return Err(HandlerError::new("that is no gift"));
    }
    let given = accounts.update_two(&name, &gift.to, Save::Durable, |mine, theirs| {
        if mine.coins < gift.coins {
            return None;
        }
        mine.coins -= gift.coins;
        theirs.coins += gift.coins;
        Some(mine.coins)
    });
    match given.await {
        Ok(left) => left.map(Json).ok_or_else(|| HandlerError::new("you do not have so many")),
        Err(RecordError::Missing { .. }) => Err(HandlerError::new("nobody has that name")),
        Err(other) => Err(other.into()),
    }
}

#[net_handle(404)]
async fn guild(
    accounts: Table<Account>,
    Body(guild): Body<String>,
) -> Result<Json<Vec<Shown>>, HandlerError> {
    let members = accounts.by_owner(&guild).await?;
    Ok(Json(members.iter().map(|account| Shown::from(&**account)).collect()))
}

pub(crate) fn app() -> App {
    App::new("accounts")
        .table::<Account>()
        .state(Hashing(Semaphore::new(HASHES_MAX)))
        .state_may_be_lost()
        .handlers(handlers![register, login, find_coin, give, guild])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_compared_as_a_whole() {
        assert!(same(b"hash", b"hash"));
        for wrong in [&b"Hash"[..], b"hasH", b"has", b"hashes", b""] {
            assert!(!same(wrong, b"hash"));
        }
    }
}

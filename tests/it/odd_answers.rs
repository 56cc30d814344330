//! Ten thousand answers with odd fields, codes and types: every request in them is read or named, and no fact of it is
//! invented.

use peergate::alicloud::{self, Class, Error, Page, RequiredField};
use peergate::peering::{Connection, InstanceId};

const CASES: usize = 10_000;

/// Always the same numbers: a failure names the case that failed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % sides
    }

    fn pick<T: Clone>(&mut self, some: &[T]) -> T {
        some[self.roll(some.len())].clone()
    }
}

/// Values of every type, whole and broken.
const ODD: [&str; 40] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "-2",
    "7",
    "1.5",
    "1024.0",
    "1e3",
    "1e400",
    "-0",
    "\"\"",
    "\" \"",
    "\"x\"",
    "\"1024\"",
    "\"-1\"",
    "\"\\ud83d\"",
    "\"\\ude00 a\"",
    "\"\\uZZZZ\"",
    "\"a\\'b\"",
    "\"a\tb\"",
    "\"pcc-a\"",
    "\"10.0.0.0/8\"",
    "[]",
    "[null]",
    "[\"\"]",
    "[\" 10.7.0.0/16 \"]",
    "[\"10.0.0.0/33\"]",
    "[[[[1]]]]",
    "{}",
    "{\"a\": {\"a\": 1}}",
    "18446744073709551615",
    "99999999999999999999999",
    "\"2026-12-01 10:00:00\"",
    "1796119200000",
    "\"Accepting\"",
    "\"Deleted\"",
    "\"9\\u0000\\n{\\\"outcome\\\":\\\"accepted\\\"}\"",
];
/// Fields that never hide a request.
const SHOWN: [&str; 9] = [
    "BizStatus",
    "Name",
    "Description",
    "GmtCreate",
    "GmtModified",
    "GmtExpired",
    "ManagedService",
    "ResourceGroupId",
    "Tags",
];
/// Fields that decide.
const DECIDES: [&str; 8] =
    ["InstanceId", "Status", "OwnerId", "AcceptingOwnerUid", "RegionId", "AcceptingRegionId", "Bandwidth", "LinkType"];
const OF_A_VPC: [&str; 3] = ["VpcId", "Ipv4Cidrs", "Ipv6Cidrs"];

/// A connection as text, field by field, and what was done to it.
struct Written {
    id: String,
    fields: Vec<(String, String)>,
    /// The fields that decide and are not as they were.
    odd: Vec<String>,
}

impl Written {
    fn whole(number: usize) -> Self {
        let id = format!("pcc-{number}");
        let field = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let fields = vec![
            field("InstanceId", &format!("\"{id}\"")),
            field("Status", "\"Accepting\""),
            field("BizStatus", "\"Normal\""),
            field("OwnerId", "253460731706911258"),
            field("AcceptingOwnerUid", "2222222222222222"),
            field("RegionId", "\"cn-hangzhou\""),
            field("AcceptingRegionId", "\"cn-shanghai\""),
            field("Vpc", r#"{"VpcId":"vpc-a","Ipv4Cidrs":["10.1.0.0/16"],"Ipv6Cidrs":[]}"#),
            field("AcceptingVpc", r#"{"VpcId":"vpc-b","Ipv4Cidrs":["10.2.0.0/16"],"Ipv6Cidrs":null}"#),
            field("Bandwidth", "1024"),
            field("LinkType", "\"Gold\""),
            field("Name", "\"one\""),
            field("GmtExpired", "\"2026-12-01T10:00:00Z\""),
        ];
        Self { id, fields, odd: vec![] }
    }

    fn mutate(&mut self, dice: &mut Dice) {
        let value = dice.pick(&ODD).to_owned();
        match dice.roll(8) {
            0..3 => {
                let name = dice.pick(&SHOWN);
                self.put(name, value, dice);
            }
            3..6 => {
                let name = dice.pick(&DECIDES);
                self.odd.push(name.to_owned());
                self.put(name, value, dice);
            }
            6 => {
                let (side, name) = (dice.pick(&["Vpc", "AcceptingVpc"]), dice.pick(&OF_A_VPC));
                self.odd.push(format!("{side}.{name}"));
                let whole = [("VpcId", "\"vpc-c\""), ("Ipv4Cidrs", "[\"10.3.0.0/16\"]"), ("Ipv6Cidrs", "[]")];
                self.odd.extend(whole.iter().map(|(field, _)| format!("{side}.{field}")));
                let fields = whole
                    .map(|(field, text)| format!("\"{field}\":{}", if field == name { value.as_str() } else { text }));
                self.put(side, format!("{{{}}}", fields.join(",")), dice);
            }
            _ => self.fields.push(("NewField".to_owned(), value)),
        }
    }

    /// Writes a field over, or beside the old one, or leaves it out.
    fn put(&mut self, name: &str, value: String, dice: &mut Dice) {
        match dice.roll(10) {
            0 => self.fields.push((name.to_owned(), value)),
            1 => self.fields.retain(|(field, _)| field != name),
            _ => {
                self.fields.retain(|(field, _)| field != name);
                let place = dice.roll(self.fields.len() + 1);
                self.fields.insert(place, (name.to_owned(), value));
            }
        }
    }

    fn text(&self) -> String {
        let fields = self.fields.iter().map(|(name, value)| format!("\"{name}\": {value}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
    }

    /// The only value of a field.
    fn only(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str());
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether every fact of the connection was in the answer.
    fn says_so(&self, read: &Connection) {
        let whole = Written::whole(0).read().unwrap();
        if self.odd.is_empty() {
            assert_eq!(read.fingerprint(), whole.fingerprint(), "{}", self.text());
        }
        if !read.status_is_open() {
            return;
        }
        let absent = |name: &str| self.fields.iter().all(|(field, value)| field != name || value == "null");
        let unlimited =
            absent("Bandwidth") || self.only("Bandwidth").is_some_and(|text| text.trim_matches('"') == "-1");
        assert_eq!(read.bandwidth_mbps.is_none(), unlimited, "{}", self.text());
        assert!(read.requester.account.0 > 0 && read.accepter.account.0 > 0, "{}", self.text());
        for side in [&read.requester, &read.accepter] {
            assert!(!side.vpc.is_empty() && !side.region.is_empty(), "{}", self.text());
        }
        for name in DECIDES {
            assert!(absent(name) || self.only(name).is_some(), "{name} is there twice: {}", self.text());
        }
    }

    fn read(&self) -> Result<Connection, Error> {
        alicloud::parse_connection_body(200, self.text().as_bytes(), &InstanceId::parse(&self.id).unwrap())
    }
}

trait Open {
    fn status_is_open(&self) -> bool;
}

impl Open for Connection {
    fn status_is_open(&self) -> bool {
        use peergate::peering::Status;
        !matches!(
            self.status,
            Status::Creating | Status::Rejected | Status::Expired | Status::Deleting | Status::Deleted
        )
    }
}

#[test]
fn every_listed_request_is_read_or_named() {
    let mut dice = Dice(0x5eed_1157);
    let (mut read, mut named, mut refused) = (0, 0, 0);
    for case in 0..CASES {
        let mut listed: Vec<_> = (0..=dice.roll(4)).map(Written::whole).collect();
        for connection in &mut listed {
            for _ in 0..dice.roll(4) {
                connection.mutate(&mut dice);
            }
        }
        let mut elements: Vec<_> = listed.iter().map(Written::text).collect();
        let stray = dice.roll(10) == 0;
        if stray {
            elements.push(dice.pick(&ODD).to_owned());
        }
        let (total, token) = (dice.pick(&ODD), dice.pick(&ODD));
        let more = if dice.roll(10) == 0 { format!(", \"Code\": {}", dice.pick(&ODD)) } else { String::new() };
        let body = format!(
            "{{\"RequestId\": {}, \"TotalCount\": {total}, \"NextToken\": {token}, \"VpcPeerConnects\": [{}]{more}}}",
            dice.pick(&ODD),
            elements.join(", ")
        );
        let page = match alicloud::parse_page_body(200, body.as_bytes()) {
            Ok(page) => page,
            Err(error) => {
                assert!(matches!(error, Error::Refused { .. }) && !more.is_empty(), "case {case}: {error:?}: {body}");
                shows_nothing_forged(error.code());
                refused += 1;
                continue;
            }
        };
        let Page { connections, unreadable: left_out, .. } = &page;
        assert_eq!(connections.len() + left_out.len(), elements.len(), "case {case}: {body}");
        let mut connections = connections.iter().peekable();
        let mut left_out = left_out.iter().peekable();
        for written in &listed {
            // Another id may have been written, and there is one more that is an id.
            let has_id = !written.odd.iter().any(|field| field == "InstanceId");
            let is_it = |id: &str| id == written.id || !has_id && id == "pcc-a";
            if let Some(connection) = connections.next_if(|connection| is_it(connection.instance_id.as_str())) {
                written.says_so(connection);
                read += 1;
                continue;
            }
            if let Some(out) = left_out.next_if(|out| out.id == written.id || !has_id) {
                shows_nothing_forged(&out.id);
                assert!(!written.odd.is_empty(), "case {case}: {} left out: {}", out.field.name(), written.text());
                named += 1;
                continue;
            }
            panic!("case {case}: neither read nor named: {}", written.text());
        }
    }
    println!("{read} read, {named} named, {refused} pages refused");
    assert!(read > 10_000 && named > 3_000 && refused > 100, "{read} {named} {refused}");
}

#[test]
fn every_reading_parses_or_names_its_unreadable_field() {
    let mut dice = Dice(0x5eed_0e77);
    let (mut read, mut named) = (0, 0);
    for case in 0..CASES {
        let mut written = Written::whole(1);
        for _ in 0..dice.roll(4) {
            written.mutate(&mut dice);
        }
        match written.read() {
            Ok(connection) => {
                written.says_so(&connection);
                assert_eq!(connection.instance_id.as_str(), written.id);
                read += 1;
            }
            Err(Error::NotUnderstood { field, .. }) => {
                let name = field.name();
                let side = |odd: &String| odd.starts_with(name) || name == "Vpc.VpcId" || name == "AcceptingVpc.VpcId";
                assert!(written.odd.iter().any(side), "case {case}: {name}: {}", written.text());
                assert_ne!(field, RequiredField::Connections);
                named += 1;
            }
            Err(error) => panic!("case {case}: {error:?}: {}", written.text()),
        }
    }
    assert!(read > 3_000 && named > 1_000, "{read} {named}");
}

#[test]
fn arbitrary_answers_never_panic() {
    let mut dice = Dice(0x5eed_b17e);
    let whole = format!("{{\"TotalCount\": 1, \"VpcPeerConnects\": [{}]}}", Written::whole(1).text());
    for _ in 0..CASES {
        let mut bytes = whole.clone().into_bytes();
        for _ in 0..=dice.roll(3) {
            let place = dice.roll(bytes.len());
            match dice.roll(4) {
                0 => drop(bytes.remove(place)),
                1 => bytes.truncate(place.max(1)),
                2 => bytes.insert(place, b"\"\\{}[]\x00\xff\xd8u"[dice.roll(10)]),
                _ => bytes[place] = u8::try_from(dice.roll(256)).unwrap(),
            }
        }
        let status = dice.pick(&[200, 204, 302, 400, 404, 429, 500]);
        if let Err(error) = alicloud::parse_page_body(status, &bytes) {
            shows_nothing_forged(error.code());
            assert_ne!(error.class(), Class::DryRunPassed);
        }
        drop(alicloud::parse_connection_body(status, &bytes, &InstanceId::parse("pcc-1").unwrap()));
    }
}

fn shows_nothing_forged(word: &str) {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-?".contains(&byte);
    assert!(word.len() <= 80 && word.bytes().all(allowed), "{word:?}");
}

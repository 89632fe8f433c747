//! What a seed makes of a schedule: the weather, who comes, and what fails.

use super::{event::Event, ms, rng::Rng, weather::Weather, world::World};
use crate::replicas::protocol::Time;

impl World {
    pub(super) fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0xA5A5);
        let calm = rng.chance(40);
        let single = calm || rng.chance(60);
        let mut weather = Weather {
            gentle: false,
            calm,
            single,
            longest: match rng.below(3) {
                0 => ms(1),
                1 => ms(6),
                _ if calm => ms(8),
                _ => ms(40),
            },
            lose: if calm { 0 } else { rng.pick([0, 2, 10]) },
            double: if calm { 0 } else { rng.pick([0, 5]) },
            misdirect: rng.pick([0, 5]),
            faults: if calm { 0 } else { rng.below(4) },
            forget: rng.chance(25),
            shareable: rng.pick([100, 70]),
            refuse: rng.pick([0, 0, 20]),
        };
        weather.gentle = weather.lose + weather.misdirect + weather.faults == 0;
        let replicas = 2 + rng.below(3) as usize;
        let keys = 1 + rng.below(2) as usize;
        let mut world = Self {
            seed,
            verbose,
            rng,
            weather,
            keys,
            store_well: Some(Time::ZERO),
            forgot: vec![None; keys],
            to_store: vec![Time::ZERO; replicas],
            from_store: vec![Time::ZERO; replicas],
            ..Self::default()
        };
        if verbose {
            eprintln!("{:?} replicas {replicas} keys {keys}", world.weather);
        }
        for at in 0..replicas {
            let replica = world.birth(at as u64);
            world.inboxes.push(replica.protocol.inbox());
            world.replicas.push(replica);
            world.at(Time::ZERO, Event::Link { replica: at });
        }
        // Callers come in bursts, as they do.
        let start = ms(25);
        let span = ms(10 + world.rng.below(250));
        for _ in 0..1 + world.rng.below(4) {
            let burst = world.rng.between(start, start + span);
            let key = world.rng.below(keys as u64) as usize;
            for _ in 0..1 + world.rng.below(6) {
                let replica = world.rng.below(replicas as u64) as usize;
                let spread = ms(world.rng.pick([0, 3, 30]));
                let at = burst + world.rng.between(Time::ZERO, spread);
                world.at(at, Event::Arrive { replica, key });
                if world.rng.chance(10) {
                    let pick = world.rng.next();
                    let at = at + world.rng.between(Time::ZERO, ms(60));
                    world.at(at, Event::Depart { replica, pick });
                }
            }
        }
        if world.weather.forget {
            for _ in 0..1 + world.rng.below(2) {
                let at = world.rng.between(start, start + span + ms(40));
                let replica = world.rng.below(replicas as u64) as usize;
                let key = world.rng.below(keys as u64) as usize;
                let event = match world.rng.chance(70) {
                    true => Event::Forget { replica, key },
                    false => Event::ForgetAll { replica },
                };
                world.at(at, event);
            }
        }
        for _ in 0..world.weather.faults {
            let at = world.rng.between(ms(5), start + span + ms(60));
            let until = at + world.rng.between(ms(5), ms(500));
            let replica = world.rng.below(replicas as u64) as usize;
            match world.rng.below(7) {
                0 => {
                    world.at(at, Event::Stop);
                    world.at(until, Event::Resume);
                }
                1 => world.at(at, Event::Restart),
                2 => {
                    let key = world.rng.below(keys as u64) as usize;
                    world.at(at, Event::LoseLease { key });
                }
                3 => world.at(at, Event::Unlink { replica }),
                4 | 5 => {
                    world.at(at, Event::Pause { replica });
                    world.at(until, Event::Unpause { replica });
                }
                _ => world.at(at, Event::Kill { replica }),
            }
        }
        let events = world.events.values();
        world.scripted = events.filter(|event| event.is_scripted()).count();
        world
    }
}

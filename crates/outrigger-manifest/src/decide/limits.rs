//! Decides about limits, the sandbox and machine code made at run time.

use super::Decider;
use super::decision::Reason;
use crate::choices::SandboxMode;
use crate::resources::Resources;

impl Decider<'_> {
    pub(super) fn resources(&mut self) -> Resources {
        let ceiling = self
            .sections
            .iter()
            .rev()
            .fold(Resources::default(), |ceiling, (_, section)| {
                ceiling.or(&section.resources)
            });
        let asked = self.requests.resources;
        let granted = asked.within(&ceiling);
        for (key, text) in asked.texts() {
            let request = format!("resources.{key}");
            let Some(given) = granted.text(key) else {
                continue;
            };
            let setting = self.setting(|section| section.resources.text(key));
            let policy = match setting {
                Some((name, _)) => format!("{name}.resources.{key}"),
                None => "policy default".to_owned(),
            };
            if given == text {
                self.grant_by(&request, policy, text);
            } else {
                let at = self.requests.positions.resources;
                let reason = Reason::limited(policy);
                self.refuse(at, &request, text, &reason, Some(given));
            }
        }
        granted
    }

    pub(super) fn sandbox(&mut self) -> SandboxMode {
        let asked = self.requests.sandbox;
        let setting = self.setting(|section| section.sandbox);
        let (name, least) = setting.unwrap_or(("policy default", SandboxMode::Require));
        if asked < least {
            let reason = Reason::limited(format!("{name}.sandbox"));
            let at = self.requests.positions.sandbox;
            let given = Some(least.to_string());
            self.refuse(at, "sandbox", asked.to_string(), &reason, given);
        }
        asked.max(least)
    }

    pub(super) fn jit(&mut self) -> bool {
        if !self.requests.jit {
            return false;
        }
        let reason = match self.setting(|section| section.jit) {
            Some((name, true)) => {
                let policy = format!("{name}.jit");
                self.grant_by("jit", policy, "true".to_owned());
                return true;
            }
            Some((name, false)) => Reason::limited(format!("{name}.jit")),
            None => Reason::no_rule(),
        };
        let at = self.requests.positions.jit;
        self.refuse(at, "jit", "true".to_owned(), &reason, None);
        false
    }
}

-- name: curbs
SELECT name, level, signal, text, since, until, pace, spared_until FROM curb ORDER BY name;

-- name: set_curb
INSERT INTO curb (name, level, signal, text, since, until, pace, spared_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET level = excluded.level, signal = excluded.signal, text = excluded.text, since = excluded.since,
  until = excluded.until, pace = excluded.pace, spared_until = excluded.spared_until;

// What the keys do. They work in the player and, while nothing has the focus, on its page.

export function onKey(player, event) {
  const target = event.composedPath()[0];
  const inside = event.composedPath().includes(player);
  const anywhere = document.activeElement === document.body;
  if (!(inside || anywhere) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!player.offsetParent || target.matches?.("input:not([type=range]), summary")) return;
  if (event.key === " " && target.matches?.("button, a")) return;
  if (event.key.startsWith("Arrow") && target.matches?.("input")) return;
  const action = actionOf(player, event.key);
  if (!action) return;
  event.preventDefault();
  action();
}

function actionOf(player, key) {
  const { engine, selected, song } = player;
  const row = player.rows[Number(key) - 1];
  if (/^[1-9]$/.test(key) && row) return () => player.select(row);
  const louder = (step) => {
    const volume = Math.max(0, Math.min(1.5, engine.levels[selected].volume + step));
    player.level(selected, { volume });
  };
  const skip = (seconds) => engine.seek(engine.position + seconds * song.sampleRate);
  const loop = (change) => {
    engine.setLoop({ ...(engine.loop || { from: 0, to: song.samples }), ...change });
  };
  return {
    " ": () => engine.toggle(),
    s: () => player.toggle(selected, "solo"),
    m: () => player.toggle(selected, "muted"),
    o: () => player.hearNext(),
    l: () => player.toggleLoop(),
    "[": () => loop({ from: engine.position }),
    "]": () => loop({ to: engine.position }),
    ArrowLeft: () => skip(-5),
    ArrowRight: () => skip(5),
    ArrowUp: () => louder(0.05),
    ArrowDown: () => louder(-0.05),
  }[key];
}

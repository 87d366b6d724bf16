// What can be read off a story without drawing it: arrows, bars, overlaps, searches, comparisons.
import type { Bar, Moment, Pace, Step, Story, Told, Way } from './types'

export const moment = (story: Story, at: number): Moment => (at === 0 ? story.first : story.steps[at - 1].after)

/** A message on its way. Rows count moments: row 0 is the beginning, row n is step n. */
export interface Arrow {
  uid: string
  src: number
  dst: number
  from: number
  /** The row of its arrival or loss; none if it is still under way. */
  to: number | null
  msg: string
  fate: 'arrived' | 'again' | 'lost' | 'under way'
}

export function arrows(story: Story): Arrow[] {
  const sent = new Map<string, { from: number; src: number; dst: number; msg: string; ended: boolean }>()
  const found: Arrow[] = []
  story.steps.forEach((step, index) => {
    const row = index + 1
    const { src, dst } = step
    if ((step.kind === 'deliver' || step.kind === 'lose') && src !== undefined && dst !== undefined && !step.impossible) {
      const known = step.uid === undefined ? undefined : sent.get(step.uid)
      if (known) known.ended = true
      const fate = step.kind === 'lose' ? 'lost' : step.again ? 'again' : 'arrived'
      const from = known?.from ?? 0
      if (src !== dst) found.push({ uid: step.uid ?? `?${row}`, src, dst, from, to: row, msg: step.msg ?? '', fate })
    }
    for (const { uid, dst, msg } of step.sends ?? []) {
      if (step.actor !== undefined) sent.set(uid, { from: row, src: step.actor, dst, msg, ended: false })
    }
  })
  for (const [uid, { from, src, dst, msg, ended }] of sent) {
    if (!ended && src !== dst) found.push({ uid, src, dst, from, to: null, msg, fate: 'under way' })
  }
  return found
}

/** A stretch of rows in which a node keeps one bar. */
export interface Stretch { lane: number; bar: Bar; epoch?: string; from: number; to: number }

export function stretches(story: Story): Stretch[] {
  const all: Stretch[] = []
  for (let lane = 0; lane < story.lanes.length; lane++) {
    let open: Stretch | null = null
    for (let row = 0; row <= story.steps.length; row++) {
      const { bar, epoch } = moment(story, row).lanes[lane]
      if (open && open.bar === bar && open.epoch === epoch) open.to = row
      else open = bar ? { lane, bar, epoch, from: row, to: row } : null
      if (open && open.from === row) all.push(open)
    }
  }
  return all
}

const writes = (bar?: Bar) => bar === 'hold' || bar === 'hook'

/** The hosts that may write in this moment, if there are several. A paused one does nothing. */
export function overlapping(at: Moment): number[] {
  const writers = at.lanes.flatMap((lane, index) => (writes(lane.bar) && lane.condition === 'running' ? [index] : []))
  return writers.length > 1 ? writers : []
}

/** Stretches of rows in which several hosts may write. */
export function overlaps(story: Story): { from: number; to: number; lanes: number[] }[] {
  const all: { from: number; to: number; lanes: number[] }[] = []
  for (let row = 0; row <= story.steps.length; row++) {
    const lanes = overlapping(moment(story, row))
    const last = all.at(-1)
    if (lanes.length === 0) continue
    if (last && last.to === row - 1 && last.lanes.join() === lanes.join()) last.to = row
    else all.push({ from: row, to: row, lanes })
  }
  return all
}

/** What tells actions of one label apart: the parts of their messages that not all of them have. */
export function apart<A extends Told>(actions: A[]): Map<A, string> {
  const parts = ({ full = '' }: Told) => full.split(/[,{}]\s*/).map(part => part.trim()).filter(Boolean)
  const alike = new Map<string, A[]>()
  for (const action of actions) {
    const all = alike.get(`${action.kind} ${action.label}`)
    if (all) all.push(action)
    else alike.set(`${action.kind} ${action.label}`, [action])
  }
  const found = new Map<A, string>()
  for (const all of alike.values()) {
    if (all.length === 1) continue
    const count = new Map<string, number>()
    for (const action of all) for (const part of new Set(parts(action))) count.set(part, (count.get(part) ?? 0) + 1)
    const own = all.map(action => [...new Set(parts(action))].filter(part => count.get(part) !== all.length))
    // The first ones that are enough.
    let most = 1
    const text = (at: number) => own[at].slice(0, most).join(', ')
    while (most < Math.max(...own.map(parts => parts.length)) && new Set(own.map((_, at) => text(at))).size < all.length) most++
    all.forEach((action, at) => text(at) && found.set(action, text(at)))
  }
  return found
}

/** How the clock of a node has run in a stretch of rows. */
export interface ClockRun extends Pace { lane: number; to: number }

/** All that is known of the clocks: of whole runs, and by each timer that has run out. */
export function clockRuns(story: Story): ClockRun[] {
  const whole = story.lanes.flatMap(({ pace }, lane) => (pace ? [{ ...pace, lane, to: story.steps.length }] : []))
  const shown = story.steps.flatMap(({ pace, actor }, at) => (pace && actor !== undefined ? [{ ...pace, lane: actor, to: at + 1 }] : []))
  return [...whole, ...shown]
}

/** The stretches in which a clock was fast or slow, each row once. */
export function clockBands(runs: ClockRun[]): { lane: number; rate: 'fast' | 'slow'; from: number; to: number }[] {
  const bands: { lane: number; rate: 'fast' | 'slow'; from: number; to: number }[] = []
  const off = runs.flatMap(({ lane, rate, from, to }) => (rate === 'true' ? [] : [{ lane, rate, from, to }]))
  for (const run of off.sort((a, b) => a.lane - b.lane || a.rate.localeCompare(b.rate) || a.from - b.from)) {
    const last = bands.at(-1)
    if (last && last.lane === run.lane && last.rate === run.rate && run.from <= last.to) last.to = Math.max(last.to, run.to)
    else bands.push({ ...run })
  }
  return bands
}

/** What is known of a node's clock in the time before this row. */
export const clockAt = (runs: ClockRun[], lane: number, row: number): ClockRun[] =>
  runs.filter(run => run.lane === lane && ((run.from < row && row <= run.to) || (run.from === 0 && row === 0)))

/** What can happen in a moment of a story that was told with what is around it. None: nobody has looked. */
export function ways(story: Story, row: number): Way[] | null {
  const { around } = story
  const print = moment(story, row).fingerprint
  const at = around?.states.findIndex(state => state.moment.fingerprint === print) ?? -1
  const found = around?.ways.filter(way => way.from === at) ?? []
  return found.length > 0 ? found : null
}

/** The story up to a row, and then another way. */
export function branch(story: Story, row: number, way: Way): Story {
  const { index, idle, from: _, to, sends = [], ...told } = way
  const before = moment(story, row)
  const steps = story.steps.slice(0, row)
  // Of several alike the newest that has not arrived yet, as the server has it.
  const sent = steps.flatMap(step => (step.actor === way.src ? (step.sends ?? []) : [])).filter(one => one.dst === way.dst && one.msg === way.msg)
  const arrived = new Set(steps.map(step => step.uid))
  const uid = way.src === undefined ? undefined : (sent.findLast(one => !arrived.has(one.uid)) ?? sent.at(-1))?.uid
  const at = String(BigInt(before.at) + (way.kind === 'elapse' ? 1n : 0n))
  const step: Step = {
    ...told, index, idle, ...(uid === undefined ? {} : { uid, again: arrived.has(uid) }),
    sends: sends.map(({ dst, msg }, n) => ({ uid: `${row + 1}.${n}`, dst, msg })),
    after: { ...story.around!.states[to].moment, at },
  }
  return { ...story, steps: [...steps, step], back_to: undefined }
}

/** The properties that must hold and do not. */
export const broken = (at: Moment): string[] =>
  (at.properties ?? []).filter(one => one.always && !one.is_true).map(one => one.name)

/** Whether a step takes part in what these nodes do. No node named: all of them. */
export function concerns(step: Step, actors: ReadonlySet<number>): boolean {
  if (actors.size === 0 || (step.actor === undefined && step.src === undefined)) return true
  return [step.actor, step.src, step.dst].some(node => node !== undefined && actors.has(node))
}

/** Rows that answer to a search: words, `actor:`, `msg:`, `changed:`, all of which must fit. */
export function search(story: Story, query: string): number[] {
  const terms = query.toLowerCase().split(/\s+/).filter(Boolean)
  if (terms.length === 0) return []
  const name = (node?: number) => (node === undefined ? '' : (story.lanes[node]?.name ?? `n${node}`).toLowerCase())
  return story.steps.flatMap((step, index) => {
    const fits = terms.every(term => {
      const [, key, value] = /^(actor|msg|changed):(.*)$/.exec(term) ?? []
      if (key === 'actor') return [step.actor, step.src, step.dst].some(node => name(node).includes(value) || `n${node}` === value)
      if (key === 'msg') return `${step.msg ?? ''} ${step.full ?? ''}`.toLowerCase().includes(value)
      if (key === 'changed') return changed(story, index).some(what => what.toLowerCase().includes(value))
      return `${step.label} ${step.full ?? ''} ${step.kind}`.toLowerCase().includes(term)
    })
    return fits ? [index + 1] : []
  })
}

/** What a step has changed: by path where the whole state is told, otherwise what nodes show. */
function changed(story: Story, index: number): string[] {
  const before = moment(story, index)
  const after = story.steps[index].after
  const paths = (after.changes ?? []).map(change => change.path.join('/'))
  const shown = after.lanes.flatMap((lane, node) => {
    const old = before.lanes[node]
    const facts = (lane.facts ?? []).filter(([name, value]) => old.facts?.find(([other]) => other === name)?.[1] !== value)
    return [...(old.role === lane.role ? [] : ['role']), ...(old.epoch === lane.epoch ? [] : ['epoch']), ...facts.map(([name]) => name)]
  })
  return [...paths, ...shown]
}

/** Rows that led to this one, or that follow from it: by the order of each node and by messages. */
export function cone(story: Story, row: number): Set<number> {
  const sentIn = new Map<string, number>()
  const parents: number[][] = [[]]
  const last = new Map<number, number>()
  story.steps.forEach((step, index) => {
    const here = index + 1
    const from: number[] = []
    if (step.actor !== undefined && last.has(step.actor)) from.push(last.get(step.actor)!)
    if (step.uid !== undefined && sentIn.has(step.uid)) from.push(sentIn.get(step.uid)!)
    parents.push(from)
    if (step.actor !== undefined) last.set(step.actor, here)
    for (const { uid } of step.sends ?? []) sentIn.set(uid, here)
  })
  const kept = new Set([row])
  for (let at = row; at > 0; at--) if (kept.has(at)) for (const from of parents[at]) kept.add(from)
  const after = new Set([row])
  for (let at = row + 1; at < parents.length; at++) if (parents[at].some(from => after.has(from))) after.add(at)
  for (const at of after) kept.add(at)
  return kept
}

/** A line of two stories side by side: the rows of one and the same step. */
export interface Pair { left: number | null; right: number | null }

/** Whether a step is on one side only: not in the other story, or there only as what cannot happen. */
export const differs = (left: Story, right: Story, pair: Pair): boolean =>
  pair.left === null || pair.right === null || left.steps[pair.left - 1].impossible !== right.steps[pair.right - 1].impossible

/** Aligns two stories by a longest common subsequence of their labels. */
export function align(left: Story, right: Story): { pairs: Pair[]; divergence: number | null } {
  const a = left.steps.map(step => step.label)
  const b = right.steps.map(step => step.label)
  let start = 0
  while (start < a.length && start < b.length && a[start] === b[start]) start++
  let tail = 0
  while (tail < a.length - start && tail < b.length - start && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++
  const n = a.length - start - tail
  const m = b.length - start - tail
  const pairs: Pair[] = []
  for (let at = 0; at < start; at++) pairs.push({ left: at + 1, right: at + 1 })
  if (n * m <= 4_000_000) {
    const width = m + 1
    const longest = new Uint32Array((n + 1) * width)
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        longest[i * width + j] = a[start + i] === b[start + j]
          ? longest[(i + 1) * width + j + 1] + 1
          : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1])
      }
    }
    let i = 0
    let j = 0
    while (i < n || j < m) {
      if (i < n && j < m && a[start + i] === b[start + j]) pairs.push({ left: start + ++i, right: start + ++j })
      else if (j >= m || (i < n && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) pairs.push({ left: start + ++i, right: null })
      else pairs.push({ left: null, right: start + ++j })
    }
  } else {
    for (let i = 0; i < n; i++) pairs.push({ left: start + i + 1, right: null })
    for (let j = 0; j < m; j++) pairs.push({ left: null, right: start + j + 1 })
  }
  for (let at = 0; at < tail; at++) pairs.push({ left: a.length - tail + at + 1, right: b.length - tail + at + 1 })
  const first = pairs.findIndex(pair => differs(left, right, pair))
  return { pairs, divergence: first < 0 ? null : first }
}

/** Nanoseconds, as text, in seconds. */
export function seconds(ns: string | null): string {
  if (ns === null) return '–'
  const value = Number(ns) / 1e9
  return `${value.toFixed(Math.abs(value) >= 100 ? 1 : 3)} s`
}

/** A time of a story. */
export function time(story: Story, at: string): string {
  if (story.clock.unit === 'ns') return `${((Number(BigInt(at) - BigInt(story.first.at))) / 1e6).toFixed(3)} ms`
  return story.clock.unit === 'ticks' ? `t=${at}` : ''
}

import { describe, expect, it } from 'vitest'
import { align, apart, arrows, branch, broken, clockAt, clockBands, clockRuns, cone, overlaps, search, seconds, stretches, ways } from '../src/story'
import type { Moment, Portrait, Step, Story, Way } from '../src/types'

const node = (bar?: Portrait['bar'], epoch?: string, condition = 'running'): Portrait => ({ role: bar ?? 'watching', condition, bar, epoch })
const at = (...lanes: Portrait[]): Moment => ({ at: '0', lanes })
const step = (label: string, rest: Partial<Step> = {}): Step => ({ kind: 'deliver', label, after: at(node(), node()), ...rest })
const story = (steps: Step[], first = at(node(), node())): Story => ({
  tenure_story: 1, title: 'a test', source: 'model', clock: { unit: 'steps', common: true, about: '' },
  lanes: [{ name: 'host n0', kind: 'host' }, { name: 'store n1', kind: 'store' }], first, steps,
})

describe('arrows', () => {
  const told = story([
    step('n0: timer', { kind: 'fire', actor: 0, sends: [{ uid: '1.0', dst: 1, msg: 'Read' }, { uid: '1.1', dst: 1, msg: 'Write' }, { uid: '1.2', dst: 1, msg: 'Write' }] }),
    step('Read arrives', { actor: 1, src: 0, dst: 1, uid: '1.0', msg: 'Read' }),
    step('Read arrives again', { actor: 1, src: 0, dst: 1, uid: '1.0', again: true, msg: 'Read' }),
    step('Write is lost', { kind: 'lose', src: 0, dst: 1, uid: '1.1', msg: 'Write' }),
  ])
  it('go from the sending to the arrival, and say what became of each message', () => {
    expect(arrows(told).map(({ uid, from, to, fate }) => [uid, from, to, fate])).toEqual([
      ['1.0', 1, 2, 'arrived'], ['1.0', 1, 3, 'again'], ['1.1', 1, 4, 'lost'], ['1.2', 1, null, 'under way'],
    ])
  })
  it('give the cone of a step: the order of each node, and messages', () => {
    const more = story([...told.steps, step('elsewhere', { kind: 'fire', actor: 0 })])
    expect(cone(more, 2)).toEqual(new Set([1, 2, 3]))
    expect(cone(more, 4)).toEqual(new Set([1, 4]))
    expect(cone(more, 5)).toEqual(new Set([1, 5]))
  })
})

describe('bars', () => {
  const told = story([
    step('a', { after: at(node('hold', '1'), node()) }),
    step('b', { after: at(node('hold', '1'), node('hook', '2')) }),
    step('c', { after: at(node('hold', '2'), node('hold', '2', 'paused')) }),
  ])
  it('are stretches of one bar and one epoch', () => {
    expect(stretches(told).map(({ lane, bar, epoch, from, to }) => [lane, bar, epoch, from, to])).toEqual([
      [0, 'hold', '1', 1, 2], [0, 'hold', '2', 3, 3], [1, 'hook', '2', 2, 2], [1, 'hold', '2', 3, 3],
    ])
  })
  it('overlap where two nodes that run may write; one that is paused does nothing', () => {
    expect(overlaps(told)).toEqual([{ from: 2, to: 2, lanes: [0, 1] }])
  })
})

//= SPEC EXPLORER-20 test
describe('clocks', () => {
  const pace = (from: number, rate: 'fast' | 'true' | 'slow') => ({ pace: { from, rate, about: `${rate} since ${from}` } })
  const told = story([
    step('a', { actor: 0 }), step('b', { actor: 0, ...pace(0, 'fast') }), step('c', { actor: 0, ...pace(1, 'fast') }),
    step('d', { actor: 0, ...pace(2, 'slow') }), step('e', { actor: 1, ...pace(3, 'true') }), step('f', { actor: 0, ...pace(5, 'fast') }),
  ])
  it('are shaded where they are fast or slow, each row once', () => {
    expect(clockBands(clockRuns(told))).toEqual([
      { lane: 0, rate: 'fast', from: 0, to: 3 }, { lane: 0, rate: 'fast', from: 5, to: 6 }, { lane: 0, rate: 'slow', from: 2, to: 4 },
    ])
  })
  it('are told of each row, and of a whole run', () => {
    expect(clockAt(clockRuns(told), 0, 3).map(run => run.about)).toEqual(['fast since 1', 'slow since 2'])
    expect(clockAt(clockRuns(told), 1, 5).map(run => run.rate)).toEqual(['true'])
    const run = { ...told, lanes: told.lanes.map((lane, at) => (at === 1 ? { ...lane, ...pace(0, 'slow') } : lane)) }
    expect([0, 3, 6].map(row => clockAt(clockRuns(run), 1, row).map(one => one.rate))).toEqual([['slow'], ['slow'], ['slow']])
  })
})

describe('search', () => {
  const told = story([
    step('host n0 → store n1: Write', { actor: 1, src: 0, dst: 1, msg: 'Write n0 e1', full: 'Write { <img onerror=x> }' }),
    step('a tick passes', { kind: 'elapse', after: { ...at(node(), node()), changes: [{ path: ['nodes', '0', 'phase'], kind: 'changed' }] } }),
  ])
  it('takes words, actor:, msg: and changed:, all of which must fit', () => {
    expect(search(told, '')).toEqual([])
    expect(search(told, 'tick')).toEqual([2])
    expect(search(told, 'actor:n0 msg:write')).toEqual([1])
    expect(search(told, 'actor:store tick')).toEqual([])
    expect(search(told, 'changed:phase')).toEqual([2])
    expect(search(told, '<img')).toEqual([1])
  })
})

describe('alignment', () => {
  const of = (...labels: string[]) => story(labels.map(label => step(label)))
  it('is a longest common subsequence and knows where the two part', () => {
    const { pairs, divergence } = align(of('a', 'b', 'c', 'e'), of('a', 'x', 'c', 'd', 'e'))
    expect(pairs).toEqual([
      { left: 1, right: 1 }, { left: 2, right: null }, { left: null, right: 2 },
      { left: 3, right: 3 }, { left: null, right: 4 }, { left: 4, right: 5 },
    ])
    expect(divergence).toBe(1)
  })
  it('lets two stories part where a step is there, but cannot happen', () => {
    const mended = story([step('a'), step('b', { impossible: true })])
    expect(align(of('a', 'b'), mended).divergence).toBe(1)
  })
  it('finds nothing where nothing differs, and all of one side where there is no other', () => {
    expect(align(of('a', 'b'), of('a', 'b')).divergence).toBeNull()
    expect(align(of(), of('a')).pairs).toEqual([{ left: null, right: 1 }])
  })
})

it('a property that must hold and does not is broken; one that need not hold here is not', () => {
  const properties = [{ name: 'x', always: true, is_true: false }, { name: 'y', always: false, is_true: false }]
  expect(broken({ at: '0', lanes: [], properties })).toEqual(['x'])
})

it('nanoseconds are shown in seconds, and what is unknown as unknown', () => {
  expect(seconds('15000000000')).toBe('15.000 s')
  expect(seconds('-2500000')).toBe('-0.003 s')
  expect(seconds(null)).toBe('–')
})

describe('a story that was told with what is around it', () => {
  const seen = (fingerprint: string, n = '0'): Moment => ({ ...at(node(), node()), at: n, fingerprint })
  const way: Way = { kind: 'deliver', label: 'Read arrives', actor: 1, src: 0, dst: 1, msg: 'Read', index: 2, idle: false, from: 1, to: 2, sends: [{ dst: 0, msg: 'ReadOk' }] }
  const told: Story = {
    ...story([step('n0: timer', { kind: 'fire', actor: 0, sends: [{ uid: '1.0', dst: 1, msg: 'Read' }], after: seen('b', '7') }), step('more')], seen('a', '7')),
    around: { complete: true, states: [seen('a'), seen('b'), seen('c')].map((moment, distance) => ({ path: '', distance, moment })), ways: [way] },
  }
  it('knows what can happen where somebody has looked', () => {
    expect(ways(told, 0)).toBeNull()
    expect(ways(told, 1)).toEqual([way])
  })
  it('goes another way, and the message arrives that was sent', () => {
    const other = branch(told, 1, way)
    expect(other.steps.map(one => one.label)).toEqual(['n0: timer', 'Read arrives'])
    expect(other.steps[1]).toMatchObject({ uid: '1.0', again: false, index: 2, sends: [{ uid: '2.0', dst: 0, msg: 'ReadOk' }], after: { fingerprint: 'c', at: '7' } })
    expect(arrows(other).map(({ from, to, fate }) => [from, to, fate])).toEqual([[1, 2, 'arrived'], [2, null, 'under way']])
    expect(branch(told, 1, { ...way, kind: 'elapse', src: undefined }).steps[1].after.at).toBe('8')
  })
})

it('actions of one label are told apart by what their messages have of their own', () => {
  const action = (label: string, full?: string) => ({ kind: 'deliver', label, full })
  const all = [action('a', 'Read { nonce: N(1), at: 5 }'), action('a', 'Read { nonce: N(2), at: 5 }'), action('b', 'Read { nonce: N(1) }'), action('c'), action('c')]
  expect([...apart(all).entries()]).toEqual([[all[0], 'nonce: N(1)'], [all[1], 'nonce: N(2)']])
  const calls = ['C { a: 1, b: 1, c: 1 }', 'C { a: 1, b: 2, c: 2 }', 'C { a: 2, b: 1, c: 3 }'].map(full => action('call', full))
  expect([...apart(calls).values()]).toEqual(['a: 1, b: 1', 'a: 1, b: 2', 'a: 2, b: 1'])
})

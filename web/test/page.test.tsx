// @vitest-environment happy-dom
import { render } from 'preact'
import { expect, it } from 'vitest'
import { parse, print } from '../src/main'
import { table } from '../src/regions'
import { StateTree } from '../src/tree'
import { Twin } from '../src/diagram'
import type { Story } from '../src/types'

const EVIL = '<img src=x onerror="globalThis.hit = true">'

//= SPEC EXPLORER-5 test
it('what a message or a state says is text, never markup', () => {
  const story: Story = {
    tenure_story: 1, title: EVIL, source: 'file', clock: { unit: 'steps', common: true, about: EVIL },
    lanes: [{ name: EVIL, kind: 'node' }], first: { at: '0', lanes: [{ role: EVIL, condition: 'running' }] },
    steps: [{ kind: 'deliver', label: EVIL, msg: EVIL, full: EVIL, actor: 0, after: { at: '1', lanes: [{ role: EVIL, condition: 'running' }] } }],
  }
  const root = document.createElement('div')
  render(<><Twin story={story} row={1} onRow={() => undefined} actors={new Set()} /><StateTree tree={{ [EVIL]: EVIL }} changes={[{ path: [EVIL], kind: 'changed', before: EVIL, after: EVIL }]} /></>, root)
  expect(root.querySelector('img')).toBeNull()
  expect(root.textContent).toContain(EVIL)
})

//= SPEC EXPLORER-20 test
it('the text says what the picture shades: how clocks have run', () => {
  const lanes = [{ role: 'watching', condition: 'running' }]
  const story: Story = {
    tenure_story: 1, title: '', source: 'model', clock: { unit: 'ticks', common: true, about: '' },
    lanes: [{ name: 'host n0', kind: 'host', pace: { from: 0, rate: 'slow', about: '80 ppm slower' } }], first: { at: '0', lanes },
    steps: [{ kind: 'fire', label: 'timer', actor: 0, pace: { from: 0, rate: 'fast', about: 'set for 3 ticks, ran out after 2' }, after: { at: '2', lanes } }],
  }
  const root = document.createElement('div')
  render(<Twin story={story} row={1} onRow={() => undefined} actors={new Set()} />, root)
  expect(root.querySelector('th:nth-child(4)')?.textContent).toContain('clock slow: 80 ppm slower')
  expect(root.querySelector('tr.current')?.textContent).toContain('its clock was fast since the beginning: set for 3 ticks, ran out after 2')
})

it('a tree says what was added, changed and removed, in words', () => {
  const root = document.createElement('div')
  render(<StateTree tree={{ is: 'S', a: '2', list: ['x'] }} changes={[
    { path: ['a'], kind: 'changed', before: '1', after: '2' },
    { path: ['list', '0'], kind: 'added', after: 'x' },
    { path: ['gone'], kind: 'removed', before: '7' },
  ]} />, root)
  const text = root.textContent ?? ''
  for (const word of ['3 changes', '± changed', '+ added', '− removed', '7']) expect(text).toContain(word)
})

it('a link holds all there is to say', () => {
  const hash = '#/model/L-1?path=0.3.1&fp=00ff&row=2&actors=0.2&q=actor%3An0+%26'
  const route = parse(hash)
  expect(route).toMatchObject({ page: 'model', id: 'L-1', path: '0.3.1', fingerprint: '00ff', row: 2, actors: [0, 2], query: 'actor:n0 &' })
  expect(parse(print(route))).toEqual(route)
  expect(parse('#/model/timed-2?path=0.1&loop=0').loop).toBe(0)
  expect(print(parse('#/model/timed-2?path=0.1&loop=0'))).toContain('loop=0')
  expect(parse('#/live').row).toBeNull()
})

it('what regions say of one thing is one row', () => {
  const lane = (facts: [string, string][]) => ({ role: '', condition: 'running', facts })
  const now = { at: '0', lanes: [lane([['peering x', 'Active'], ['life', '1']]), lane([['peering x', 'Pending'], ['peering y', 'Active']])] }
  expect(table(now, [0, 1], /^peering /)).toEqual([['peering x', ['Active', 'Pending']], ['peering y', [undefined, 'Active']]])
})

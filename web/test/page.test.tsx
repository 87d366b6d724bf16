// @vitest-environment happy-dom
import { render } from 'preact'
import { expect, it, vi } from 'vitest'
import { get } from '../src/api'
import { table } from '../src/regions'
import { arrived, parse, print, write } from '../src/route'
import { StateTree } from '../src/tree'
import { Twin } from '../src/diagram'
import { Actions, StoryView } from '../src/view'
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

it('letters work while the slider has the keyboard, and its own keys are left to it', () => {
  const lanes = [{ role: 'watching', condition: 'running' }]
  const after = { at: '1', lanes }
  const story: Story = {
    tenure_story: 1, title: '', source: 'model', clock: { unit: 'steps', common: true, about: '' },
    lanes: [{ name: 'host n0', kind: 'host' }], first: { at: '0', lanes },
    steps: [{ kind: 'fire', label: 'one', actor: 0, after }, { kind: 'fire', label: 'two', actor: 0, after }],
  }
  const went: unknown[] = []
  const root = document.body.appendChild(document.createElement('div'))
  render(<StoryView story={story} where={{ row: 1, actors: [], query: '' }} onWhere={where => went.push(where)} onProblem={() => undefined} />, root)
  const slider = root.querySelector<HTMLInputElement>('input[type=range]')!
  const press = (element: Element, key: string) => {
    const event = new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true })
    element.dispatchEvent(event)
    return event.defaultPrevented
  }
  expect(['j', 'k'].map(key => press(slider, key))).toEqual([true, true])
  expect(went).toEqual([{ row: 2 }, { row: 0 }])
  expect(['ArrowRight', 'ArrowUp', 'Home', 'End', 'x'].map(key => press(slider, key))).toEqual([false, false, false, false, false])
  expect(went.length).toBe(2)
  expect(press(slider, '/')).toBe(true)
  expect(document.activeElement?.id).toBe('search')
  expect(press(document.activeElement!, 'j')).toBe(false)
  expect(went.length).toBe(2)
  render(null, root)
  root.remove()
})

it('an address that a browser does not take at once is written later, unless one has gone elsewhere', () => {
  vi.useFakeTimers()
  const refused = (refuse: () => void, act: () => void) => {
    const stubs = (['pushState', 'replaceState'] as const).map(name => vi.spyOn(history, name).mockImplementation(refuse))
    act()
    for (const stub of stubs) stub.mockRestore()
  }
  try {
    for (const refuse of [() => undefined, () => { throw new Error('too many') }]) {
      write('#/model/a?path=0', true)
      refused(refuse, () => {
        write('#/model/a?path=0.1', true)
        write('#/model/a?path=0.1.2', true)
        vi.advanceTimersByTime(5000)
      })
      expect(location.hash).toBe('#/model/a?path=0')
      vi.advanceTimersByTime(2000)
      expect(location.hash).toBe('#/model/a?path=0.1.2')
      refused(refuse, () => write('#/model/a?path=7', true))
      expect(arrived()).toBeNull()
      location.hash = '#/models'
      expect(arrived()?.page).toBe('models')
      vi.advanceTimersByTime(5000)
      expect(location.hash).toBe('#/models')
    }
  } finally {
    vi.useRealTimers()
  }
})

//= SPEC EXPLORER-8 test
it('what is not answered is not waited for for ever, and it is said', async () => {
  vi.useFakeTimers()
  vi.stubGlobal('fetch', (_: string, { signal }: RequestInit) => new Promise((_, reject) => signal!.addEventListener('abort', () => reject(new DOMException('', 'AbortError')))))
  try {
    const answer = expect(get('models')).rejects.toThrow(/not answered for a minute/)
    await vi.advanceTimersByTimeAsync(60_000)
    await answer
  } finally {
    vi.unstubAllGlobals()
    vi.useRealTimers()
  }
})

it('who is sent on as soon as the page is there arrives', async () => {
  vi.stubGlobal('fetch', async () => new Response('[]'))
  const root = document.body.appendChild(document.createElement('div'))
  root.id = 'app'
  location.hash = '#/'
  try {
    vi.resetModules()
    await import('../src/main')
    location.hash = '#/models'
    dispatchEvent(new HashChangeEvent('hashchange'))
    await vi.waitFor(() => expect(root.querySelector('h1')?.textContent).toBe('Models'))
  } finally {
    vi.unstubAllGlobals()
    root.remove()
  }
})

it('many actions that change nothing come last, and are there when they are asked for', async () => {
  const root = document.body.appendChild(document.createElement('div'))
  const all = Array.from({ length: 30 }, (_, index) => ({ kind: 'deliver', label: `message ${index}`, index, idle: index < 20 }))
  const taken: number[] = []
  const shown = (count: number) => {
    render(<Actions actions={all.slice(0, count)} onTake={({ index }) => taken.push(index)} />, root)
    return [...root.querySelectorAll('button')].map(button => button.textContent?.replace(/\D+/g, ''))
  }
  expect(shown(8).length).toBe(8)
  expect(shown(30)).toEqual(['20', '21', '22', '23', '24', '25', '26', '27', '28', '29'])
  expect(root.querySelector('summary')?.textContent).toBe('20 more, which change nothing')
  root.querySelector('details')!.open = true
  root.querySelector('details')!.dispatchEvent(new Event('toggle'))
  await vi.waitFor(() => expect(shown(30).length).toBe(30))
  root.querySelectorAll<HTMLButtonElement>('details button')[5].click()
  expect(taken).toEqual([5])
  render(null, root)
  root.remove()
})

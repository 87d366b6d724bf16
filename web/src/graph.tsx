// The states around the one that is shown, and the actions between them: a picture, and its twin as a list.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { get } from './api'
import type { Placed } from './layout'
import { broken, overlapping } from './story'
import type { Around } from './types'

const SIZE = { width: 190, height: 44 }

type Layout = (count: number, size: { width: number; height: number }, edges: [number, number][]) => Placed

let loading: Promise<Layout> | undefined

/** The layout is a script of its own: who never looks at a graph never loads it. */
function loadLayout(): Promise<Layout> {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement('script')
    script.src = 'layout.js'
    script.onload = () => resolve((globalThis as unknown as { tenureLayout: Layout }).tenureLayout)
    script.onerror = () => { loading = undefined; reject(new Error('layout.js cannot be loaded: is `tenure explore` still running?')) }
    document.head.append(script)
  })
  return loading
}

interface Point { x: number; y: number }

/** A line from the right side of a state to the left side of the next one, past those between. */
function curve(from: Point, to: Point, points: Point[]): string {
  const text = ({ x, y }: Point) => `${x.toFixed(1)} ${y.toFixed(1)}`
  const [begin, end] = [{ x: from.x + SIZE.width / 2, y: from.y }, { x: to.x - SIZE.width / 2, y: to.y }]
  if (end.x <= begin.x) return points.map((point, at) => `${at === 0 ? 'M' : 'L'}${text(point)}`).join('')
  const between = points.slice(1, -1).filter(({ x }) => x > begin.x && x < end.x)
  const through = points.length > 3 ? [...between, end] : [end]
  let last = begin
  return `M${text(begin)}` + through.map(point => {
    const middle = (last.x + point.x) / 2
    const part = `C${text({ x: middle, y: last.y })} ${text({ x: middle, y: point.y })} ${text(point)}`
    last = point
    return part
  }).join('')
}

interface Props { model: string; path: string; onPath: (path: string) => void; onProblem: (error: Error) => void }

export function StateGraph({ model, path, onPath, onProblem }: Props) {
  const [steps, setSteps] = useState(1)
  const [around, setAround] = useState<Around | null>(null)
  const [layout, setLayout] = useState<{ place: Layout } | null>(null)
  useEffect(() => { loadLayout().then(place => setLayout({ place }), onProblem) }, [])
  useEffect(() => {
    let current = true
    get<Around>('around', { model, path, steps: String(steps) }).then(around => current && setAround(around), error => current && onProblem(error as Error))
    return () => { current = false }
  }, [model, path, steps])
  // Several actions between the same two states are one line; what changes nothing is only in the list.
  const lines = useMemo(() => {
    const found = new Map<string, { from: number; to: number; labels: string[] }>()
    for (const way of around?.ways ?? []) {
      if (way.from === way.to) continue
      const key = `${way.from} ${way.to}`
      const line = found.get(key) ?? { from: way.from, to: way.to, labels: [] }
      line.labels.push(way.label)
      found.set(key, line)
    }
    return [...found.values()]
  }, [around])
  const placed = useMemo(
    () => (around && layout ? layout.place(around.states.length, SIZE, lines.map(({ from, to }) => [from, to])) : null),
    [around, layout, lines],
  )
  const word = (at: number) => {
    const { moment } = around!.states[at]
    const wrong = broken(moment)
    return wrong.length > 0 ? `✗ ${wrong[0]}` : overlapping(moment).length > 0 ? 'overlap' : around!.ways.find(way => way.to === at && way.from !== at)?.label ?? ''
  }
  const name = (at: number) => {
    const { lanes } = around!.states[at].moment
    const held = lanes.flatMap((lane, node) => (lane.bar === 'hold' || lane.bar === 'hook' || lane.bar === 'frozen' ? [`n${node} ${lane.bar === 'hold' ? 'holds' : lane.bar === 'hook' ? 'stops' : 'frozen'}`] : []))
    return held.join(', ') || lanes.map(lane => lane.role).find(role => role !== '') || 'state'
  }
  const through = around?.ways ?? []
  const clip = (text: string, most: number) => (text.length > most ? `${text.slice(0, most - 1)}…` : text)
  const shown = around?.states.findIndex(state => state.path === path) ?? -1
  const scroller = useRef<HTMLDivElement>(null)
  useLayoutEffect(() => {
    const at = placed?.nodes[shown]
    const element = scroller.current
    if (at && element) element.scrollTo(at.x - element.clientWidth / 3, at.y - element.clientHeight / 2)
  }, [placed, shown])
  return (
    <div class="graph">
      <div class="graph-tools">
        <div role="group" aria-label="How far">
          {[1, 2, 3, 4].map(count => <button type="button" key={count} aria-pressed={steps === count} onClick={() => setSteps(count)}>{count} {count === 1 ? 'step' : 'steps'}</button>)}
        </div>
        <span class="quiet" role="status">{around ? `${around.states.length} states${around.complete ? '' : ', and more that are not drawn'}` : '…'}</span>
      </div>
      {around && placed && (
        <div class="graph-scroll" ref={scroller} tabIndex={0} role="region" aria-label="The states around this one; the list below says the same">
          <svg width={placed.width} height={placed.height} viewBox={`0 0 ${placed.width} ${placed.height}`} aria-hidden="true">
            <defs><marker id="graph-tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 1 10 5 0 9z" /></marker></defs>
            {lines.map((line, at) => (
              <g class={`way ${line.from === shown ? 'near' : ''}`} key={at}>
                <title>{line.labels.join('\n')}</title>
                <path d={curve(placed.nodes[line.from], placed.nodes[line.to], placed.edges[at])} marker-end="url(#graph-tip)" />
              </g>
            ))}
            {around.states.map((state, at) => {
              const { x, y } = placed.nodes[at]
              // What leads there is said in the state; what is wrong with it comes first.
              const bad = broken(state.moment).length > 0 || overlapping(state.moment).length > 0
              return (
                <g class={`state ${at === shown ? 'shown' : ''} ${bad ? 'bad' : ''}`} key={at} onClick={() => onPath(state.path)}>
                  <title>{state.moment.lanes.map((lane, node) => `n${node} ${lane.condition} ${lane.role}`).join('\n')}</title>
                  <rect x={x - SIZE.width / 2} y={y - SIZE.height / 2} width={SIZE.width} height={SIZE.height} rx="8" />
                  <text x={x} y={y - 3}>{clip(name(at), 28)}</text>
                  <text class="small" x={x} y={y + 14}>{clip(word(at), 32)}</text>
                </g>
              )
            })}
          </svg>
        </div>
      )}
      {around && (
        <details class="graph-list">
          <summary>The same as a list</summary>
          <ul>
            {around.states.map((state, at) => (
              <li key={at}>
                <button type="button" onClick={() => onPath(state.path)} aria-current={at === shown ? 'step' : undefined}>{at === shown ? 'the shown state' : `state ${at + 1}`}: {name(at)} {word(at)}</button>
                <ul>{through.filter(way => way.from === at).map(way => <li key={way.index}>{way.label} → {way.to === at ? 'no change' : way.to === shown ? 'the shown state' : `state ${way.to + 1}`}</li>)}</ul>
              </li>
            ))}
          </ul>
        </details>
      )}
    </div>
  )
}

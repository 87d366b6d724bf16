// The space-time diagram: time goes down, a lane for each node, messages as slanted arrows. Only the rows in
// view are drawn, so a story may be long. Every text is a text node.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { arrows, broken, clockBands, clockRuns, concerns, moment, overlapping, overlaps, stretches, time } from './story'
import type { Step, Story } from './types'

const ROW = 28
const GUTTER = 74
const TOP = 16

interface Props {
  story: Story
  row: number
  onRow: (row: number) => void
  actors: ReadonlySet<number>
  hits: ReadonlySet<number>
  cone: ReadonlySet<number> | null
}

const GLYPH: Record<string, string> = { crash: '✕', recover: '▲', pause: '‖', resume: '▶', intervene: '✱' }

function Event({ step, x, y, lane }: { step: Step; x: number; y: number; lane: (node: number) => number }) {
  if (step.kind === 'elapse') return null
  if (step.kind === 'lose') return null
  const at = step.actor === undefined ? x : lane(step.actor)
  const glyph = GLYPH[step.kind]
  if (step.impossible) return <text class="glyph missed" x={at} y={y + 5}>⊘</text>
  if (glyph) return <text class={`glyph ${step.kind}`} x={at} y={y + 5}>{glyph}</text>
  if (step.kind === 'fire') return <rect class="dot fire" x={at - 4.5} y={y - 4.5} width="9" height="9" transform={`rotate(45 ${at} ${y})`} />
  return <circle class={`dot ${step.idle ? 'idle' : ''} ${step.kind}`} cx={at} cy={y} r="4.5" />
}

export function Diagram({ story, row, onRow, actors, hits, cone }: Props) {
  const scroller = useRef<HTMLDivElement>(null)
  const [view, setView] = useState({ top: 0, height: 600, width: 700 })
  const drawn = useMemo(() => ({ arrows: arrows(story), bars: stretches(story), overlaps: overlaps(story), clocks: clockBands(clockRuns(story)) }), [story])
  const lanes = useMemo(
    () => story.lanes.map((_, node) => node).filter(node => actors.size === 0 || actors.has(node)),
    [story, actors],
  )

  useLayoutEffect(() => {
    const element = scroller.current!
    // A new picture only when the rows in view are about to run out.
    const look = () => setView(old => {
      const top = Math.floor(element.scrollTop / (8 * ROW)) * 8 * ROW
      const same = old.top === top && old.height === element.clientHeight && old.width === element.clientWidth
      return same ? old : { top, height: element.clientHeight, width: element.clientWidth }
    })
    look()
    element.addEventListener('scroll', look, { passive: true })
    const observer = typeof ResizeObserver === 'undefined' ? null : new ResizeObserver(look)
    observer?.observe(element)
    return () => {
      element.removeEventListener('scroll', look)
      observer?.disconnect()
    }
  }, [])

  useEffect(() => {
    const element = scroller.current!
    const y = row * ROW
    const head = 52
    if (y < element.scrollTop) element.scrollTop = Math.max(0, y - ROW)
    else if (y > element.scrollTop + element.clientHeight - head - 3 * ROW) element.scrollTop = y - element.clientHeight + head + 4 * ROW
  }, [row])

  const narrow = view.width < 560
  const gutter = narrow ? 62 : GUTTER
  const least = narrow ? 132 : Math.max(250, view.width * 0.4)
  const laneWidth = Math.max(narrow ? 56 : 92, Math.min(170, (view.width - gutter - least) / lanes.length))
  const width = gutter + laneWidth * lanes.length
  // Where there is little room, a node is called by its number: its lane says what it is.
  const short = (label: string) => (narrow ? story.lanes.reduce((text, { name }) => text.replaceAll(name, name.replace(/^\w+ (?=n\d+$)/, '')), label) : label)
  const labelWidth = Math.max(least, view.width - width)
  const total = width + labelWidth
  const height = TOP + (story.steps.length + 1) * ROW + 18
  const places = new Map(lanes.map((node, at) => [node, gutter + laneWidth * (at + 0.5)]))
  const lane = (node: number) => places.get(node) ?? gutter
  const y = (at: number) => TOP + at * ROW + ROW / 2
  const first = Math.max(0, Math.floor(view.top / ROW) - 8)
  const last = Math.min(story.steps.length, Math.ceil((view.top + view.height) / ROW) + 16)
  const rows = Array.from({ length: Math.max(0, last - first + 1) }, (_, at) => first + at)
  // The picture is as high as what is drawn of it: one of a hundred thousand pixels is slow to paint.
  const [roof, floor] = [first * ROW, Math.min(height, TOP + (last + 2) * ROW)]
  const inView = (from: number, to: number) => from <= last && to >= first
  const faded = (at: number) =>
    at > 0 && ((cone !== null && !cone.has(at)) || !concerns(story.steps[at - 1], actors)) ? 'faded' : ''

  return (
    <div class={`diagram ${narrow ? 'narrow' : ''}`} ref={scroller} tabIndex={0} role="group" aria-label="Space-time diagram, one row for each step. Its text twin is under the tab Text.">
      <div class="lanes" style={{ width: `${total}px` }}>
        {lanes.map(node => (
          <div class="lane" key={node} style={{ left: `${lane(node) - laneWidth / 2}px`, width: `${laneWidth}px` }}>
            <b>{story.lanes[node].name}</b>
            <span>{moment(story, row).lanes[node].role}</span>
          </div>
        ))}
      </div>
      <div class="canvas" style={{ width: `${total}px`, height: `${height}px` }}>
        <svg width={width} height={floor - roof} viewBox={`0 ${roof} ${width} ${floor - roof}`} style={{ top: `${roof}px` }} aria-hidden="true">
          <defs>
            <pattern id="hook" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
              <rect class="hook-ground" width="6" height="6" /><rect class="hook-line" width="2.5" height="6" />
            </pattern>
            <pattern id="overlap" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">
              <rect class="overlap-ground" width="8" height="8" /><rect class="overlap-line" width="3" height="8" />
            </pattern>
            <pattern id="clock-fast" width="12" height="8" patternUnits="userSpaceOnUse"><path class="clock-line" d="M1 6.5 6 2.5 11 6.5" /></pattern>
            <pattern id="clock-slow" width="12" height="9" patternUnits="userSpaceOnUse"><circle class="clock-dot" cx="6" cy="4.5" r="1.7" /></pattern>
            <marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 1 10 5 0 9z" /></marker>
          </defs>
          <rect class="chosen" x="0" y={y(row) - ROW / 2} width={width} height={ROW} />
          {rows.filter(at => hits.has(at)).map(at => <rect class="hit" x="0" y={y(at) - ROW / 2} width="4" height={ROW} key={at} />)}
          {rows.filter(at => at > 0 && story.steps[at - 1].kind === 'elapse').map(at => (
            <line class="tick" x1={gutter - 8} x2={width} y1={y(at)} y2={y(at)} key={at} />
          ))}
          {drawn.clocks.filter(one => places.has(one.lane) && inView(one.from, one.to)).map(one => {
            const x = lane(one.lane) + (one.rate === 'fast' ? -29 : 17)
            const [top, end] = [Math.max(y(one.from), y(first)), Math.min(y(one.to), y(last + 1))]
            return (
              <g class="clock-band" transform={`translate(${x} 0)`} key={`${one.lane}-${one.rate}-${one.from}`}>
                <rect class="clock-ground" y={top} width="12" height={end - top} rx="3" />
                <rect class={`clock ${one.rate}`} y={top} width="12" height={end - top} rx="3" />
                {one.to - one.from > 1 && <text class="clock-word" x="6" y={one.to <= last ? y(one.to) - 5 : (top + end) / 2}>{one.rate}</text>}
              </g>
            )
          })}
          {lanes.map(node => <line class="lifeline" x1={lane(node)} x2={lane(node)} y1={TOP + first * ROW} y2={TOP + (last + 1) * ROW} key={node} />)}
          {rows.map(at => lanes.filter(node => moment(story, at).lanes[node].condition !== 'running').map(node => (
            <rect class={`absent ${moment(story, at).lanes[node].condition}`} x={lane(node) - 13} y={y(at)} width="26" height={ROW} key={`${at}-${node}`} />
          )))}
          {drawn.bars.filter(bar => places.has(bar.lane) && inView(bar.from, bar.to + 1)).map(bar => (
            <g key={`${bar.lane}-${bar.from}`}>
              <rect class={`bar ${bar.bar}`} x={lane(bar.lane) - (bar.bar === 'watch' ? 4 : 9)} width={bar.bar === 'watch' ? 8 : 18} y={y(bar.from)} height={(bar.to - bar.from + 1) * ROW - 2} rx="4" />
              {bar.epoch !== undefined && <text class="epoch" x={lane(bar.lane) + 13} y={y(bar.from) + 14}>e{bar.epoch}{bar.bar === 'hook' ? ' stopping' : ''}</text>}
              {bar.bar === 'frozen' && <text class="epoch" x={lane(bar.lane) + 13} y={y(bar.from) + 14}>frozen</text>}
            </g>
          ))}
          {drawn.overlaps.filter(one => inView(one.from, one.to + 1)).map(one => {
            const shown = one.lanes.filter(node => places.has(node)).map(lane)
            if (shown.length === 0) return null
            const [left, right] = [Math.min(...shown), Math.max(...shown)]
            return (
              <g class="overlap" key={one.from}>
                <rect class="overlap-band" x={left} width={right - left} y={y(one.from)} height={(one.to - one.from + 1) * ROW - 2} />
                {shown.map(x => <rect class="overlap-bar" x={x - 10} width="20" y={y(one.from)} height={(one.to - one.from + 1) * ROW - 2} rx="4" key={x} />)}
                <text class="overlap-word" x={(left + right) / 2} y={y(one.from) + 16}>{story.clock.common ? 'OVERLAP' : 'OVERLAP?'}</text>
              </g>
            )
          })}
          {drawn.arrows.filter(one => places.has(one.src) && places.has(one.dst) && inView(one.from, one.to ?? one.from + 1)).map(one => {
            const [x1, y1, x2] = [lane(one.src), y(one.from), lane(one.dst)]
            if (one.to === null || one.fate === 'lost') {
              const share = one.to === null ? 0.22 : 0.5
              const end = one.to === null ? y1 + 12 : y1 + (y(one.to) - y1) * share
              const x = x1 + (x2 - x1) * share
              return (
                <g class={`arrow ${one.fate === 'lost' ? 'lost' : 'under-way'} ${one.to === null ? '' : faded(one.to)}`} key={one.uid}>
                  <line x1={x1} y1={y1} x2={x} y2={end} />
                  {one.fate === 'lost' && <text class="glyph lost" x={x} y={end + 5}>✕</text>}
                  {one.fate === 'lost' && <text class="fate" x={x + 9} y={end + 4}>lost</text>}
                </g>
              )
            }
            const y2 = y(one.to)
            const chosen = one.to === row || one.from === row ? 'near' : ''
            return (
              <g class={`arrow ${one.fate} ${faded(one.to)} ${chosen}`} key={`${one.uid}-${one.to}`}>
                <line x1={x1} y1={y1} x2={x2 + (x1 < x2 ? -6 : 6)} y2={y2} marker-end="url(#tip)" />
                {one.fate === 'again' && <text class="fate" x={(x1 + x2) / 2} y={(y1 + y2) / 2 - 4}>again</text>}
              </g>
            )
          })}
          {rows.filter(at => at > 0 && (story.steps[at - 1].actor === undefined || places.has(story.steps[at - 1].actor!))).map(at => (
            <g class={faded(at)} key={at}><Event step={story.steps[at - 1]} x={gutter - 10} y={y(at)} lane={lane} /></g>
          ))}
          {story.back_to !== undefined && story.steps.length > 0 && (
            <path class="loop" d={`M${gutter - 4} ${y(story.steps.length)} h-6 V${y(story.back_to)} h6`} marker-end="url(#tip)" />
          )}
          {rows.map(at => (
            <text class="count" x="30" y={y(at) + 4} key={at}>{at === 0 ? 'start' : at}</text>
          ))}
          {rows.filter(at => at > 0 && story.steps[at - 1].kind === 'elapse').map(at => (
            <text class="when" x="36" y={y(at) + 4} key={at}>{time(story, story.steps[at - 1].after.at)}</text>
          ))}
        </svg>
        <div class="labels" style={{ left: `${width}px`, width: `${labelWidth}px` }}>
          {rows.map(at => {
            const wrong = broken(moment(story, at))
            const before = at === 0 ? [] : broken(moment(story, at - 1))
            const fresh = wrong.filter(name => !before.includes(name))
            const step = at === 0 ? null : story.steps[at - 1]
            return (
              <button
                type="button"
                key={at}
                class={`label ${at === row ? 'current' : ''} ${faded(at)} ${step?.impossible ? 'missed' : ''} ${step?.kind === 'elapse' ? 'elapse' : ''}`}
                style={{ top: `${TOP + at * ROW}px`, height: `${ROW}px` }}
                tabIndex={at === row ? 0 : -1}
                aria-current={at === row ? 'step' : undefined}
                title={step?.full ?? step?.label}
                onClick={() => onRow(at)}
              >
                {fresh.length > 0 && <span class="broken">✗ {fresh.join(', ')}</span>}
                <span>{step === null ? 'the beginning' : short(step.label)}</span>
                {step?.impossible && <em> cannot happen here</em>}
                {step?.inferred && <em> {story.source === 'nodes' ? 'inferred' : 'was due'}</em>}
                {step?.idle && !step.impossible && <em> no change</em>}
              </button>
            )
          })}
        </div>
      </div>
    </div>
  )
}

/** The text twin: the same facts as a table. */
export function Twin({ story, row, onRow, actors }: { story: Story; row: number; onRow: (row: number) => void; actors: ReadonlySet<number> }) {
  const from = Math.max(0, row - 150)
  const to = Math.min(story.steps.length, row + 150)
  const all = arrows(story)
  const clock = (step: Step) => (step.pace && step.pace.rate !== 'true' ? [`its clock was ${step.pace.rate} since ${step.pace.from === 0 ? 'the beginning' : `step ${step.pace.from}`}: ${step.pace.about}`] : [])
  const facing = (at: number) => {
    const step = story.steps[at - 1]
    const arrow = all.find(one => one.to === at)
    if (step.kind === 'lose') return 'lost'
    if (!arrow) return ''
    return `${arrow.fate === 'again' ? 'arrives again, ' : ''}sent in ${arrow.from === 0 ? 'the beginning' : `step ${arrow.from}`}`
  }
  const rows = Array.from({ length: to - from + 1 }, (_, at) => from + at).filter(at => at === 0 || concerns(story.steps[at - 1], actors))
  return (
    <div class="twin" tabIndex={0} role="region" aria-label="The diagram as text">
      {(from > 0 || to < story.steps.length) && <p class="quiet">steps {from} to {to} of {story.steps.length}</p>}
      <table>
        <thead><tr><th scope="col">step</th><th scope="col">what happens</th><th scope="col">message</th>{story.lanes.map((lane, node) => <th scope="col" key={node}>{lane.name}{lane.pace && <small> clock {lane.pace.rate}: {lane.pace.about}</small>}</th>)}<th scope="col">remarks</th></tr></thead>
        <tbody>
          {rows.map(at => {
            const now = moment(story, at)
            const step = at === 0 ? null : story.steps[at - 1]
            const remarks = [...(step?.inferred ? ['inferred'] : []), ...(step ? clock(step) : []), ...(at === story.steps.length && story.back_to !== undefined ? [`and again from step ${story.back_to}`] : []), ...broken(now).map(name => `${name} is violated`), ...(overlapping(now).length > 0 ? ['overlap: two may write'] : [])]
            return (
              <tr key={at} class={at === row ? 'current' : ''} aria-current={at === row ? 'step' : undefined}>
                <td><button type="button" onClick={() => onRow(at)}>{at}</button></td>
                <td>{at === 0 ? 'the beginning' : story.steps[at - 1].label}</td>
                <td>{at === 0 ? '' : facing(at)}</td>
                {now.lanes.map((lane, node) => <td key={node}>{lane.condition === 'running' ? '' : `${lane.condition} `}{lane.role}{lane.epoch === undefined ? '' : ` e${lane.epoch}`}</td>)}
                <td class={broken(now).length > 0 || overlapping(now).length > 0 ? 'broken' : ''}>{remarks.join('; ')}</td>
              </tr>
            )
          })}
        </tbody>
      </table>
    </div>
  )
}

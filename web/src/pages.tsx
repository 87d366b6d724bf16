// The gallery, the comparison, the configuration, and opening files.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { follow, get, postJson } from './api'
import { Diagram } from './diagram'
import type { Route } from './route'
import { align, broken, differs, moment, overlapping, seconds } from './story'
import { StoryView } from './view'
import type { Exhibit, Found, Progress, Story, Timing } from './types'

type OnProblem = (error: Error | null) => void

export function Gallery({ onProblem }: { onProblem: OnProblem }) {
  const [all, setAll] = useState<Exhibit[]>([])
  useEffect(() => { get<Exhibit[]>('gallery').then(setAll, onProblem) }, [])
  const section = (protocol: string, title: string) => (
    <section>
      <h2>{title}</h2>
      <ul class="cards">
        {all.filter(one => one.protocol === protocol).map(one => {
          const model = `#/model/${encodeURIComponent(one.id)}`
          const open = one.path === null ? model : `${model}?path=${one.path}&fp=${one.fingerprint}`
          return (
            <li class="card" key={one.id}>
              <h3><a href={open}>{one.id}</a></h3>
              <p class="rule">{one.rule}</p>
              <p>{one.without}</p>
              <p class="fate"><span class="cross" aria-hidden="true">✗</span> <code>{one.property}</code> {one.steps === null ? 'never happens' : `violated in ${one.steps} steps`}</p>
              <p class="links">
                <a class="button primary" href={open} aria-label={one.path === null ? `Walk the model ${one.id}` : `Show ${one.id}`}>{one.path === null ? 'Walk the model' : 'Show'}</a>
                {one.path !== null && <a class="button" href={`#/compare?left=${encodeURIComponent(`${one.id}|${one.path}`)}&mended=1`} aria-label={`Put it back: ${one.id}`}>Put it back</a>}
                {one.link !== null && <a class="real" href={one.link} rel="noreferrer" target="_blank">{place(one.link)}</a>}
              </p>
            </li>
          )
        })}
      </ul>
    </section>
  )
  return (
    <div class="page gallery">
      <h1>What each rule is for</h1>
      <p class="lead">Each of these rules can be left out of a model, which then must fail. Here is the shortest way to each failure; put the rule back, and the same schedule does no harm.</p>
      {section('lease', 'The lease')}
      {section('irc', 'Operations between regions')}
    </div>
  )
}

/** The short name of a public report. */
function place(link: string): string {
  const [, owner, name, number] = /github\.com\/([^/]+)\/([^/]+)(?:\/(?:issues|pull)\/(\d+))?/.exec(link) ?? []
  if (owner === undefined) return `It happened: ${new URL(link).hostname}`
  return `It happened: ${name}${number ? `#${number}` : ''}`
}

// ---------------------------------------------------------------------------------------------------
// Compare
// ---------------------------------------------------------------------------------------------------

async function load(ref: string): Promise<Story> {
  const [model, path = ''] = ref.split('|')
  return get<Story>('story', { model, path })
}

function Half({ story, row }: { story: Story; row: number | null }) {
  if (row === null) return <td class="gap"><span class="quiet">–</span></td>
  const step = story.steps[row - 1]
  const now = moment(story, row)
  const before = broken(moment(story, row - 1))
  const fresh = broken(now).filter(name => !before.includes(name))
  return (
    <td class={`${step.impossible ? 'missed' : ''} ${overlapping(now).length > 0 ? 'both' : ''}`}>
      <span class="n">{row}</span> <span class="told">{step.label}</span>
      {step.impossible && <em> cannot happen here</em>}
      {step.inferred && <em> was due, and comes first</em>}
      {step.idle && !step.impossible && <em> no change</em>}
      {overlapping(now).length > 0 && <b class="word"> overlap</b>}
      {fresh.map(name => <b class="word" key={name}> ✗ {name}</b>)}
    </td>
  )
}

export function Compare({ route, go, onProblem }: { route: Route; go: (route: Partial<Route>) => void; onProblem: OnProblem }) {
  const { left: leftRef, right: rightRef, mended } = route
  const [exhibits, setExhibits] = useState<Exhibit[]>([])
  const [left, setLeft] = useState<Story | null>(null)
  const [right, setRight] = useState<Story | null>(null)
  useEffect(() => { get<Exhibit[]>('gallery').then(setExhibits, onProblem) }, [])
  useEffect(() => { if (leftRef) load(leftRef).then(setLeft, onProblem) }, [leftRef])
  useEffect(() => {
    if (mended && leftRef) {
      const [model, path = ''] = leftRef.split('|')
      get<Story>('mended', { model, path }).then(setRight, onProblem)
    } else if (rightRef) load(rightRef).then(setRight, onProblem)
  }, [leftRef, rightRef, mended])
  const file = async (event: Event, set: (story: Story) => void) => {
    try {
      set(await read((event.currentTarget as HTMLInputElement).files!))
      onProblem(null)
    } catch (error) {
      onProblem(error as Error)
    }
  }
  const both = useMemo(() => (left && right ? align(left, right) : null), [left, right])
  const known = exhibits.filter(one => one.path !== null)
  const picker = (side: 'left' | 'right', story: Story | null, ref: string, set: (story: Story) => void) => (
    <div class="picker">
      <label>{side === 'left' ? 'First' : 'Second'} story
        <select value={ref} onChange={event => go(side === 'left' ? { left: event.currentTarget.value } : { right: event.currentTarget.value, mended: false })}>
          <option value="">{story ? story.title : 'choose a counterexample'}</option>
          {ref !== '' && !known.some(one => `${one.id}|${one.path}` === ref) && <option value={ref}>{ref.split('|')[0]}</option>}
          {known.map(one => <option key={one.id} value={`${one.id}|${one.path}`}>{one.id} {one.property}</option>)}
        </select>
      </label>
      <label class="button">open a file<input class="sr" type="file" multiple onChange={event => file(event, set)} /></label>
    </div>
  )
  const rule = mended ? exhibits.find(one => one.id === leftRef.split('|')[0])?.rule : undefined
  const harm = (story: Story) => story.steps.some(step => broken(step.after).length > 0)
  return (
    <div class="page">
      <h1>{mended ? `${leftRef.split('|')[0]}, put back` : 'Compare two stories'}</h1>
      {rule && <p class="lead"><b>{rule}</b> Left: a model without this rule. Right: the same schedule with it; what cannot happen any more is marked.</p>}
      <div class="pickers">{picker('left', left, leftRef, setLeft)}{picker('right', right, mended ? '' : rightRef, setRight)}</div>
      {both && left && right && (
        <>
          <p class="verdict" role="status">
            {both.divergence === null ? 'The two are the same, step by step.' : `They part at line ${both.divergence + 1}.`}{' '}
            {mended && (harm(right) ? 'The schedule still does harm.' : 'With the rule, no property is violated in any state of the schedule.')}
          </p>
          <div class="split">
            <Mini story={left} /><Mini story={right} />
          </div>
          <div class="scroll" tabIndex={0} role="region" aria-label="Two stories side by side">
            <table class="compare">
              <thead><tr><th scope="col" class="n">#</th><th scope="col">{left.title}</th><th scope="col">{mended ? 'with the rule' : right.title}</th></tr></thead>
              <tbody>
                {both.pairs.map((pair, at) => (
                  <tr key={at} class={`${at === both.divergence ? 'divergence' : ''} ${differs(left, right, pair) ? 'differs' : ''}`}>
                    <td class="n">{at + 1}{at === both.divergence && <span class="flag"> they part</span>}</td>
                    <Half story={left} row={pair.left} /><Half story={right} row={pair.right} />
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
    </div>
  )
}

const NONE: ReadonlySet<number> = new Set()

function Mini({ story }: { story: Story }) {
  const [row, setRow] = useState(story.steps.length)
  useEffect(() => setRow(story.steps.length), [story])
  return <div class="mini"><h2>{story.title}</h2><Diagram story={story} row={Math.min(row, story.steps.length)} onRow={setRow} actors={NONE} hits={NONE} cone={null} /></div>
}

// ---------------------------------------------------------------------------------------------------
// Files
// ---------------------------------------------------------------------------------------------------

export async function read(list: FileList): Promise<Story> {
  const files = await Promise.all([...list].map(async file => ({ name: file.name, text: await file.text() })))
  return postJson<Story>('import', { files })
}

export function Open({ route, go, onProblem }: { route: Route; go: (route: Partial<Route>) => void; onProblem: OnProblem }) {
  const [story, setStory] = useState<Story | null>(null)
  useEffect(() => { get<Story | null>('opened').then(setStory, onProblem) }, [])
  const open = async (files: FileList) => {
    try {
      setStory(await read(files))
      onProblem(null)
      go({ row: 0 })
    } catch (error) {
      onProblem(error as Error)
    }
  }
  return (
    <div class="page" onDragOver={event => event.preventDefault()} onDrop={event => { event.preventDefault(); if (event.dataTransfer) void open(event.dataTransfer.files) }}>
      <div class="heading">
        <h1>{story ? story.title : 'Open a trace'}</h1>
        <label class="button primary">Open files<input class="sr" id="files" type="file" multiple onChange={event => open(event.currentTarget.files!)} /></label>
      </div>
      {story
        ? <StoryView story={story} where={{ row: Math.min(route.row ?? 0, story.steps.length), actors: route.actors, query: route.query }} onWhere={go} onProblem={onProblem} />
        : (
          <div class="lead">
            <p>Choose files, or drop them here:</p>
            <ul>
              <li>the NDJSON traces of all nodes of one run (<code>tenure node --trace</code>, <code>tenure demo --trace-dir</code>): they are checked against the model, and shown together;</li>
              <li>the Informal Trace Format, of this or another tool (<code>*.itf.json</code>);</li>
              <li>a story that was exported here, or a counterexample of <code>tenure check</code>.</li>
            </ul>
          </div>
        )}
    </div>
  )
}

// ---------------------------------------------------------------------------------------------------
// Configuration
// ---------------------------------------------------------------------------------------------------

const SLIDERS = [
  ['lease', 'L', 'how long a watcher waits over an unchanged record', 1, 60, 0.5],
  ['give_up', 'G', 'how long a holder holds after the send of its last good renewal', 0.5, 60, 0.5],
  ['renew', 'R', 'the time from one renewal to the next', 0.5, 30, 0.5],
  ['hook', 'S', 'the worst time of the stop hook', 0, 30, 0.5],
] as const

function Margin({ timing }: { timing: Timing }) {
  const n = (ns: string) => Number(ns) / 1e9
  const [hold, end, takeover] = [n(timing.last_act) - n(timing.hook), n(timing.last_act), n(timing.takeover_earliest)]
  if (!Number.isFinite(end) || end > 1e6) return null
  const span = Math.max(end, takeover) * 1.08
  const x = (s: number) => 90 + (s / span) * 690
  const safe = timing.safe
  const text = `The holder's work ends at the latest ${seconds(timing.last_act)} after its send. A watcher takes over at the earliest after ${seconds(timing.takeover_earliest)}. ${safe ? `Between them lies a margin.` : `They overlap by ${seconds(timing.overlap)}.`}`
  const step = [0.5, 1, 2, 5, 10, 20].find(step => span / step <= 12) ?? 50
  return (
    <figure class="margin">
      <svg viewBox="0 0 800 176" role="img" aria-label={text}>
        <defs>
          <pattern id="hook2" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="hook-ground" width="6" height="6" /><rect class="hook-line" width="2.5" height="6" /></pattern>
          <pattern id="overlap2" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><rect class="overlap-ground" width="8" height="8" /><rect class="overlap-line" width="3" height="8" /></pattern>
        </defs>
        {Array.from({ length: Math.floor(span / step) + 1 }, (_, at) => at * step).map(at => (
          <g key={at}><line class="tick" x1={x(at)} x2={x(at)} y1="20" y2="140" /><text class="count" x={x(at)} y="158">{at} s</text></g>
        ))}
        <text class="who" x="80" y="52">holder</text><text class="who" x="80" y="102">watcher</text>
        <rect class="bar hold" x={x(0)} width={x(hold) - x(0)} y="34" height="28" rx="5" />
        {end > hold && <rect class="bar hook2" x={x(hold)} width={x(end) - x(hold)} y="34" height="28" rx="5" />}
        <text class="in" x={x(0) + 8} y="53">G/(1−ρ) {hold.toFixed(3)} s</text>
        <rect class="bar watch" x={x(0)} width={x(takeover) - x(0)} y="84" height="28" rx="5" />
        <text class="in dark" x={x(0) + 8} y="103">L/(1+ρ) {takeover.toFixed(3)} s</text>
        <rect class="bar hold next" x={x(takeover)} width={Math.max(0, x(span) - x(takeover))} y="84" height="28" rx="5" />
        {safe
          ? <g><rect class="room" x={x(end)} width={Math.max(1, x(takeover) - x(end))} y="26" height="108" /><text class="room-word" x={(x(end) + x(takeover)) / 2} y="20">margin</text></g>
          : <g><rect class="overlap-both" x={x(takeover)} width={Math.max(3, x(end) - x(takeover))} y="26" height="108" /><text class="overlap-word" x={(x(end) + x(takeover)) / 2} y="20">OVERLAP</text></g>}
      </svg>
      <figcaption>{text}</figcaption>
    </figure>
  )
}

export function Config({ onProblem }: { onProblem: OnProblem }) {
  const [values, setValues] = useState({ lease: 15, give_up: 10, renew: 5, hook: 2, ppm: 1000 })
  const [timing, setTiming] = useState<Timing | null>(null)
  const [found, setFound] = useState<Found | null>(null)
  const [progress, setProgress] = useState<Progress | null>(null)
  const running = useRef<AbortController | null>(null)
  useEffect(() => () => running.current?.abort(), [])
  const query = {
    lease: `${values.lease}s`, give_up: `${values.give_up}s`, renew: `${values.renew}s`, hook: `${values.hook}s`,
    clock_error_ppm: String(values.ppm),
  }
  useEffect(() => {
    let current = true
    setFound(null)
    get<Timing>('timing', query).then(timing => { if (current) { setTiming(timing); onProblem(null) } }, error => current && onProblem(error))
    return () => { current = false }
  }, [values])
  const check = async () => {
    const control = new AbortController()
    running.current = control
    setFound(null)
    setProgress({ unique: '0', generated: '0', depth: 0, waiting: '0', seconds: 0 })
    onProblem(null)
    try {
      setFound(await follow('timing/check', query, setProgress, control.signal))
    } catch (error) {
      if ((error as Error).name !== 'AbortError') onProblem(error as Error)
    } finally {
      setProgress(null)
    }
  }
  const set = (name: string, value: number) => setValues({ ...values, [name]: value })
  return (
    <div class="page config">
      <h1>Is this configuration safe?</h1>
      <p class="lead">Work must have ended before anybody else can take over: <code>G/(1−ρ) + S &lt; L/(1+ρ)</code>.</p>
      <div class="columns">
        <div class="sliders">
          {SLIDERS.map(([name, letter, about, min, max, step]) => (
            <label key={name}>
              <span><b>{letter}</b> {about}</span>
              <input type="range" min={min} max={max} step={step} value={values[name]} aria-valuetext={`${values[name]} seconds`} onInput={event => set(name, Number(event.currentTarget.value))} />
              <output>{values[name]} s</output>
            </label>
          ))}
          <label>
            <span><b>ρ</b> the bound on the error of a clock's rate</span>
            <input type="range" min="0" max="100000" step="500" value={values.ppm} aria-valuetext={`${values.ppm} parts per million`} onInput={event => set('ppm', Number(event.currentTarget.value))} />
            <output>{values.ppm} ppm</output>
          </label>
        </div>
        {timing && (
          <div class="verdicts">
            <p class={`big ${timing.safe ? 'good' : 'bad'}`} role="status">{timing.safe ? '✓ SAFE' : '✗ UNSAFE'}</p>
            <dl>
              <div><dt>L must be more than</dt><dd>{seconds(timing.need)}</dd></div>
              <div><dt>L is</dt><dd>{seconds(timing.lease)}</dd></div>
              <div><dt>margin</dt><dd>{seconds(timing.margin)}</dd></div>
              <div><dt>smallest safe L</dt><dd>{seconds(timing.smallest_lease)}</dd></div>
              <div><dt>largest safe G</dt><dd>{seconds(timing.largest_give_up)}</dd></div>
              <div><dt>largest safe S</dt><dd>{seconds(timing.largest_hook)}</dd></div>
            </dl>
          </div>
        )}
      </div>
      {timing && <Margin timing={timing} />}
      {timing?.errors.map(error => <p class="note bad" key={error}>{error}</p>)}
      <p class="checker">
        <button type="button" class="button primary" onClick={check} disabled={progress !== null || !timing || timing.errors.length > 0}>Check this configuration</button>
        <span class="quiet">explores a model with these very L, G, S and ρ: two hosts, messages late and lost, renewals and polls at any time</span>
      </p>
      {progress && <p class="progress" role="status"><progress aria-label="exploring" /> {progress.unique} states, depth {progress.depth}, {progress.seconds.toFixed(1)} s <button type="button" onClick={() => running.current?.abort()}>Stop</button></p>}
      {found && (
        <div class="found" role="status">
          <p><b>{found.end === 'complete' ? 'Every state was explored' : found.end}</b>: {found.unique} states, depth {found.depth}, {found.seconds.toFixed(2)} s</p>
          <ul class="properties">{found.properties.map(one => <li key={one.name} class={one.verdict === 'violated' || one.verdict === 'never' ? 'bad' : 'good'}><code>{one.name}</code> {one.verdict}</li>)}</ul>
        </div>
      )}
    </div>
  )
}

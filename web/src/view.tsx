// One story: the diagram or its text, the state, the properties, and what to do with it.
import type { ComponentChildren } from 'preact'
import { useLayoutEffect, useMemo, useState } from 'preact/hooks'
import { postText, save } from './api'
import { Diagram, Twin } from './diagram'
import { isOfRegions, Regions } from './regions'
import { apart, broken, clockAt, clockBands, clockRuns, cone as coneOf, moment, overlapping, overlaps, search, time } from './story'
import { StateTree } from './tree'
import type { Change, Judged, NextAction, Story, Tree } from './types'

export interface Where { row: number; actors: number[]; query: string }

interface Props {
  story: Story
  where: Where
  onWhere: (where: Partial<Where>) => void
  /** What the server knows of the chosen state beyond the story. */
  state?: { tree: Tree; changes: Change[]; properties: Judged[] } | null
  actions?: ComponentChildren
  tools?: ComponentChildren
  onProblem: (error: Error) => void
  /** A file that is opened without a server cannot ask for other forms. */
  offline?: boolean
  /** The whole story for an export, with every state. */
  whole?: (form: string) => Promise<Story>
  /** The states around the chosen one. */
  graph?: ComponentChildren
}

const FORMS = [
  ['itf', 'ITF', 'itf.json'],
  ['ndjson', 'NDJSON', 'ndjson'],
  ['plantuml', 'PlantUML', 'puml'],
  ['html', 'HTML', 'html'],
] as const

const OF_SLIDER = /^(Arrow|Home$|End$)/

function Properties({ all }: { all: Judged[] }) {
  if (all.length === 0) return <p class="quiet">nothing judges this story</p>
  return (
    <ul class="properties">
      {all.map(({ name, always, is_true }) => {
        const [sign, word, kind] = always
          ? is_true ? ['✓', 'holds here', 'good'] : ['✗', 'violated here', 'bad']
          : is_true ? ['●', 'true here', 'good'] : ['○', 'not true here', 'quiet']
        return <li key={name} class={kind}><span aria-hidden="true">{sign}</span> <code>{name}</code> <span>{word}</span> <small>{always ? 'always' : 'sometimes'}</small></li>
      })}
    </ul>
  )
}

/** As many actions that change nothing are shown beside the others. */
const FEW = 8

/** What can happen next, to be chosen from. */
export function Actions<A extends NextAction>({ actions, onTake }: { actions: A[]; onTake: (action: A) => void }) {
  const [open, setOpen] = useState(false)
  const differ = useMemo(() => apart(actions), [actions])
  const list = (all: A[]) => all.length > 0 && (
    <ul class="actions">
      {all.map(action => (
        <li key={action.index}>
          <button type="button" onClick={() => onTake(action)} title={action.full}>
            <span class={`badge ${action.kind}`}>{action.kind}</span> {action.label}{differ.has(action) && <small> {differ.get(action)}</small>}{action.idle && <em> no change</em>}
          </button>
        </li>
      ))}
    </ul>
  )
  const idle = actions.filter(action => action.idle)
  return (
    <>
      {list(actions.filter(action => !action.idle))}
      {idle.length <= FEW ? list(idle) : (
        <details class="idle" open={open} onToggle={event => setOpen(event.currentTarget.open)}>
          <summary>{idle.length} more, which change nothing</summary>
          {open && list(idle)}
        </details>
      )}
    </>
  )
}

export function StoryView({ story, where, onWhere, state, actions, tools, onProblem, offline, whole, graph }: Props) {
  const row = Math.min(where.row, story.steps.length)
  const [tab, setTab] = useState<'picture' | 'text' | 'graph' | 'regions'>('picture')
  const [near, setNear] = useState(false)
  const actors = useMemo(() => new Set(where.actors), [where.actors.join()])
  const hits = useMemo(() => search(story, where.query), [story, where.query])
  const hitSet = useMemo(() => new Set(hits), [hits])
  const cone = useMemo(() => (near ? coneOf(story, row) : null), [story, row, near])
  const now = moment(story, row)
  const shown = state ?? (now.tree === undefined ? null : { tree: now.tree, changes: now.changes ?? [], properties: now.properties ?? [] })
  const writers = overlapping(now)
  const clocks = useMemo(() => clockRuns(story), [story])
  const signs = useMemo(() => {
    const rates = new Set(clockBands(clocks).map(band => band.rate))
    const bars = new Set([story.first, ...story.steps.map(step => step.after)].flatMap(({ lanes }) => lanes.map(lane => lane.bar)))
    const is = (sign: string, word: string, there: boolean) => (there ? [[sign, word] as const] : [])
    return [
      ...is('hold', 'holds', bars.has('hold')), ...is('hook', 'stopping', bars.has('hook')), ...is('watch', 'watches', bars.has('watch')),
      ...is('frozen', 'frozen', bars.has('frozen')), ...is('both', 'overlap', overlaps(story).length > 0),
      ...is('fast', 'fast clock', rates.has('fast')), ...is('slow', 'slow clock', rates.has('slow')),
    ]
  }, [story, clocks])
  const wrong = broken(now)

  // Before the next key can come: a key that met the handler of the row before would be lost.
  useLayoutEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement
      if (event.ctrlKey || event.metaKey || event.altKey || target.closest('input:not([type=range]), textarea, select, dialog')) return
      const last = story.steps.length
      const by: Record<string, () => void> = {
        ArrowDown: () => onWhere({ row: Math.min(last, row + 1) }),
        j: () => onWhere({ row: Math.min(last, row + 1) }),
        ArrowUp: () => onWhere({ row: Math.max(0, row - 1) }),
        k: () => onWhere({ row: Math.max(0, row - 1) }),
        Home: () => onWhere({ row: 0 }),
        End: () => onWhere({ row: last }),
        n: () => { const next = hits.find(hit => hit > row) ?? hits[0]; if (next !== undefined) onWhere({ row: next }) },
        N: () => { const next = hits.findLast(hit => hit < row) ?? hits.at(-1); if (next !== undefined) onWhere({ row: next }) },
        c: () => setNear(is => !is),
        t: () => setTab(is => (is === 'picture' ? 'text' : 'picture')),
        '/': () => document.getElementById('search')?.focus(),
        ArrowRight: () => onWhere({ row: Math.min(last, row + 1) }),
        ArrowLeft: () => onWhere({ row: Math.max(0, row - 1) }),
      }
      const act = by[event.key]
      // The slider has keys of its own.
      if (!act || ((target as HTMLInputElement).type === 'range' && OF_SLIDER.test(event.key))) return
      event.preventDefault()
      act()
    }
    document.addEventListener('keydown', onKey)
    return () => document.removeEventListener('keydown', onKey)
  })

  const toggle = (node: number) => {
    const next = new Set(actors)
    if (next.has(node)) next.delete(node)
    else next.add(node)
    onWhere({ actors: [...next].sort((a, b) => a - b) })
  }
  const exported = async (form: string, ending: string) => {
    try {
      const text = await postText(`export/${form}`, whole ? await whole(form) : story)
      save(`${story.title.replace(/[^\w-]+/g, '-')}.${ending}`, text)
    } catch (error) {
      onProblem(error as Error)
    }
  }

  return (
    <div class="story">
      <div class="toolbar">
        <label class="search">
          <span class="sr">Search the steps</span>
          <input id="search" type="search" placeholder="Search:  text   actor:n0   msg:write   changed:phase" value={where.query} onInput={event => onWhere({ query: event.currentTarget.value })} />
        </label>
        {where.query && <span class="quiet" role="status">{hits.length} {hits.length === 1 ? 'step' : 'steps'}</span>}
        <fieldset class="chips">
          <legend class="sr">Show only these nodes</legend>
          {story.lanes.map((lane, node) => (
            <button type="button" class="chip" aria-pressed={actors.has(node)} key={node} onClick={() => toggle(node)}>{lane.name}</button>
          ))}
          <button type="button" class="chip" aria-pressed={near} onClick={() => setNear(!near)} title="Only what led to this step, or follows from it (c)">causal cone</button>
        </fieldset>
        {tools}
        {!offline && (
          <details class="menu">
            <summary class="button">Export</summary>
            <div>{FORMS.map(([form, name, ending]) => <button type="button" key={form} onClick={() => exported(form, ending)}>{name}</button>)}</div>
          </details>
        )}
      </div>
      {(story.notes ?? []).map(note => <p class={`note ${/REJECTED/.test(note) ? 'bad' : ''}`} key={note}>{note}</p>)}
      <div class="columns">
        <section class="main" aria-label="What happened">
          <div class="tabs">
            <div role="group" aria-label="How to show it">
              <button type="button" aria-pressed={tab === 'picture'} onClick={() => setTab('picture')}>Diagram</button>
              <button type="button" aria-pressed={tab === 'text'} onClick={() => setTab('text')}>Text</button>
              {isOfRegions(story) && <button type="button" aria-pressed={tab === 'regions'} onClick={() => setTab('regions')}>Regions</button>}
              {graph && <button type="button" aria-pressed={tab === 'graph'} onClick={() => setTab('graph')}>States</button>}
            </div>
            {signs.length > 0 && <ul class="legend" aria-label="Signs">
              {signs.map(([sign, word]) => <li key={sign}><i class={sign} />{word}</li>)}
            </ul>}
          </div>
          {tab === 'graph' && graph ? graph
            : tab === 'regions' && isOfRegions(story) ? <Regions story={story} now={now} before={moment(story, Math.max(0, row - 1))} />
            : tab === 'picture'
            ? <Diagram story={story} row={row} onRow={row => onWhere({ row })} actors={actors} hits={hitSet} cone={cone} />
            : <Twin story={story} row={row} onRow={row => onWhere({ row })} actors={actors} />}
          <div class="scrubber">
            <button type="button" aria-label="one step back" disabled={row === 0} onClick={() => onWhere({ row: row - 1 })}>◀</button>
            <label><span class="sr">Step</span><input type="range" min="0" max={story.steps.length} value={row} onInput={event => onWhere({ row: Number(event.currentTarget.value) })} /></label>
            <button type="button" aria-label="one step on" disabled={row >= story.steps.length} onClick={() => onWhere({ row: row + 1 })}>▶</button>
            <output aria-live="polite">step {row} of {story.steps.length} {time(story, now.at)}</output>
          </div>
          <p class="quiet clock">Clock: {story.clock.about}.</p>
        </section>
        <aside aria-label="The chosen step" tabIndex={0}>
          <h2 class="what">{row === 0 ? 'The beginning' : `${row}. ${story.steps[row - 1].label}`}</h2>
          {writers.length > 0 && (
            <p class="alert" role="status"><b>{story.clock.common ? 'Overlap' : 'Overlap, if the clocks agree'}:</b> {writers.map(node => story.lanes[node].name).join(' and ')} may both write.</p>
          )}
          {wrong.map(name => <p class="alert" key={name}><b>Violated:</b> <code>{name}</code></p>)}
          {actions}
          <h3>Properties of this state</h3>
          <Properties all={state?.properties ?? now.properties ?? []} />
          <h3>Nodes</h3>
          <dl class="nodes">
            {now.lanes.map((lane, node) => (actors.size === 0 || actors.has(node)) && (
              <div key={node}>
                <dt>{story.lanes[node].name} <span class="pill">{lane.role}{lane.epoch === undefined ? '' : ` e${lane.epoch}`}</span>{lane.condition !== 'running' && lane.condition !== lane.role && <span class="pill">{lane.condition}</span>}</dt>
                {clockAt(clocks, node, row).map(run => <dd key={`${run.from} ${run.to} ${run.about}`}><span>clock</span> {run.rate}<small> {run.about}</small></dd>)}
                {(lane.facts ?? []).map(([name, value]) => {
                  const before = row === 0 ? value : moment(story, row - 1).lanes[node].facts?.find(([other]) => other === name)?.[1]
                  return <dd key={name} class={before === value ? '' : 'changed'}><span>{name}</span> {value}{before !== value && before !== undefined && <del> {before}</del>}</dd>
                })}
              </div>
            ))}
          </dl>
          {row > 0 && story.steps[row - 1].full !== undefined && (<><h3>Message</h3><pre class="full">{story.steps[row - 1].full}</pre></>)}
          {shown && (<><h3>State</h3><StateTree tree={shown.tree} changes={shown.changes} key={`${row}`} /></>)}
        </aside>
      </div>
    </div>
  )
}

// Regions side by side: what each shows, what it knows, and what it still has to carry.
import type { Moment, Story } from './types'

/** The parts of the table, by the first words of the facts of a region's portrait. */
const PARTS = [
  ['views', 'what customers see', /^peering /],
  ['facts', 'what each knows', /^(requester|accepter) says /],
  ['links', 'how they stand to each other', /^towards /],
  ['work log', 'what is still to be carried', /^work /],
  ['claims', 'who carries it', /^(claim|works on) /],
  ['itself', 'its life and its clock', /^(life|clock)$/],
] as const

export const isOfRegions = (story: Story): boolean => story.lanes.filter(lane => lane.kind === 'region').length > 1

/** A row of a part: the name of a fact, and what each region says of it. */
export function table(now: Moment, nodes: number[], part: RegExp): [string, (string | undefined)[]][] {
  const names = [...new Set(nodes.flatMap(node => (now.lanes[node].facts ?? []).map(([name]) => name).filter(name => part.test(name))))]
  return names.sort().map(name => [name, nodes.map(node => now.lanes[node].facts?.find(([other]) => other === name)?.[1])])
}

export function Regions({ story, now, before }: { story: Story; now: Moment; before: Moment }) {
  const of = (kind: string) => story.lanes.flatMap((lane, node) => (lane.kind === kind ? [node] : []))
  const regions = of('region')
  const servers = of('server')
  const shown = (part: string) => (part === 'claims' ? [...regions, ...servers] : regions)
  const columns = servers.length > 0 ? [...regions, ...servers] : regions
  return (
    <div class="regions" tabIndex={0} role="region" aria-label="Regions side by side">
      <table>
        <thead>
          <tr><th scope="col"><span class="sr">what</span></th>{columns.map(node => <th scope="col" key={node}>{story.lanes[node].name} <span class="pill">{now.lanes[node].condition === 'running' ? now.lanes[node].role : now.lanes[node].condition}</span></th>)}</tr>
        </thead>
        {PARTS.map(([part, about, words]) => {
          const rows = table(now, shown(part), words)
          return (
            <tbody key={part}>
              <tr><th scope="rowgroup" colSpan={columns.length + 1}><b>{part}</b> {about}</th></tr>
              {rows.length === 0 && <tr><td class="quiet" colSpan={columns.length + 1}>nothing</td></tr>}
              {rows.map(([name, values]) => {
                const known = values.slice(0, regions.length)
                const differ = ['views', 'facts'].includes(part) && new Set(known).size > 1
                return (
                  <tr key={name} class={differ ? 'differ' : ''}>
                    <th scope="row">{name}{differ && <em> differ</em>}</th>
                    {columns.map((node, at) => {
                      const value = values[at]
                      const old = before.lanes[node].facts?.find(([other]) => other === name)?.[1]
                      return <td key={node} class={value === old ? '' : 'changed'}>{value ?? <span class="quiet">–</span>}{value !== old && old !== undefined && <> <del>{old}</del></>}</td>
                    })}
                  </tr>
                )
              })}
            </tbody>
          )
        })}
      </table>
    </div>
  )
}

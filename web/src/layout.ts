// Loaded when a graph is looked at for the first time: where its states go.
import { Graph, layout } from '@dagrejs/dagre'

export interface Placed { width: number; height: number; nodes: { x: number; y: number }[]; edges: { x: number; y: number }[][] }

function place(count: number, size: { width: number; height: number }, edges: [number, number][]): Placed {
  const graph = new Graph({ multigraph: true })
  graph.setGraph({ rankdir: 'LR', nodesep: 12, ranksep: 74, marginx: 12, marginy: 12 })
  graph.setDefaultEdgeLabel(() => ({}))
  for (let node = 0; node < count; node++) graph.setNode(String(node), { ...size })
  edges.forEach(([from, to], at) => graph.setEdge(String(from), String(to), {}, String(at)))
  layout(graph)
  const { width = 0, height = 0 } = graph.graph() as { width?: number; height?: number }
  const point = ({ x, y }: { x: number; y: number }) => ({ x, y })
  return {
    width, height,
    nodes: Array.from({ length: count }, (_, node) => point(graph.node(String(node)) as { x: number; y: number })),
    edges: edges.map(([from, to], at) => ((graph.edge(String(from), String(to), String(at)) as { points: { x: number; y: number }[] }).points ?? []).map(point)),
  }
}

Object.assign(globalThis, { tenureLayout: place })

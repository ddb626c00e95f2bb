import type { WriterTally } from './writer.ts'

/** What a run has found out. */
export interface TortureReport {
  seed: number
  group: string
  nodes: number
  seconds: number
  /** How long the client waited at most, in each fault of a kind. */
  faults: { kind: string; faults: number; medianMs: number; maxMs: number }[]
  writer: WriterTally
  /** Objects whose copies were held against each other at the end. */
  objectsCompared: number
  /** Nodes that ended by themselves, and were started again as systemd does. */
  restarts: number
  statusAnswers: number
  /** What is not as it must be; without any nothing was lost, and no two copies differ. */
  findings: string[]
}

export function describe(report: TortureReport): string {
  const { writer } = report
  const rows = report.faults.map(({ kind, faults, medianMs, maxMs }) => [
    kind,
    String(faults),
    seconds(medianMs),
    seconds(maxMs),
  ])
  const lines = [['FAULT', 'TIMES', 'STALL, MEDIAN', 'STALL, MAX'], ...rows].map(
    ([kind, ...figures]) => `${kind!.padEnd(14)}${figures.map((figure) => figure.padStart(15)).join('')}`,
  )
  return [
    `${report.nodes} nodes on ${report.group}, seed ${report.seed}, ${report.seconds} s`,
    '',
    ...lines,
    '',
    `acknowledged writes  ${writer.acknowledged}, checked in ${writer.sectorsChecked} sectors over ${writer.connections} connections`,
    `unanswered writes    ${writer.unanswered}; refused for want of space: ${writer.refused}`,
    `copies compared      ${report.objectsCompared} objects`,
    `nodes that ended     ${report.restarts}`,
    `answers of status    ${report.statusAnswers}`,
    `lost or diverged     ${report.findings.length}`,
    ...report.findings.map((finding) => `  ${finding}`),
  ].join('\n')
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`

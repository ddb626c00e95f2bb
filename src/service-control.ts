import type { Handlers, Result } from './control/methods.ts'
import type { Explanation, Inspection, WorkStory } from './services/explain.ts'

/** What the service side answers over its control socket, for commands of this machine. */
export function serviceHandlers(inspection: Inspection): Handlers {
  return {
    ping: async () => ({}),
    explain: async ({ id }) => {
      const explanation = await inspection.explain(id)
      return { explanation: explanation && toAnswer(explanation) }
    },
    volume_list: async ({ after, limit, status, project_id }) => {
      const rows = await inspection.listVolumes({ after, limit, status, projectId: project_id })
      return {
        volumes: rows.map((row) => ({
          id: row.id,
          name: row.name,
          project_id: row.project_id,
          status: row.status,
          reason: row.status_reason,
          size_gib: row.size_gib,
          volume_type: row.volume_type_name,
          host: row.host,
          created_at: row.created_at,
          updated_at: row.updated_at,
        })),
      }
    },
  }
}

function toAnswer(explanation: Explanation): NonNullable<Result<'explain'>['explanation']> {
  return {
    kind: explanation.kind,
    id: explanation.id,
    name: explanation.name,
    project_id: explanation.projectId,
    size_gib: explanation.sizeGib,
    volume_id: explanation.volumeId,
    host: explanation.host,
    status: explanation.status,
    reason: explanation.reason,
    created_at: explanation.createdAt,
    updated_at: explanation.updatedAt,
    work: explanation.work && toWork(explanation.work),
    work_beside: explanation.workBeside.map((unit) => ({ resource_id: unit.resourceId, ...toWork(unit) })),
    attachments: explanation.attachments.map(({ instanceId, ...rest }) => ({ ...rest, instance_id: instanceId })),
    snapshots: explanation.snapshots,
    volumes: explanation.volumes,
    messages: explanation.messages.map((message) => ({
      id: message.id,
      created_at: message.createdAt,
      level: message.level,
      event_id: message.eventId,
      text: message.text,
      request_id: message.requestId,
    })),
  }
}

function toWork(unit: WorkStory) {
  return {
    kind: unit.kind,
    step: unit.step,
    attempt: unit.attempt,
    last_error: unit.lastError,
    due_at_ms: unit.dueAtMs,
    owner: unit.owner,
  }
}

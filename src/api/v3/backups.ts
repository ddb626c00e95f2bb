import { z } from 'zod'
import type { Backup } from '../../services/model.ts'
import { description, flag, guid, Link, metadata, name, optionalGuid, statusOf, text } from '../fields.ts'
import { textFilter } from '../filters.ts'
import type { Links } from '../links.ts'
import { adminOnly, since } from '../microversion.ts'
import { listing } from '../paging.ts'
import { type ApiRequest, defineRoute, type Route } from '../route.ts'
import { repr } from '../validation.ts'
import { answerList, listResponse } from './lists.ts'

export const BACKUPS = listing({
  filters: {
    name: textFilter,
    status: textFilter,
    volume_id: textFilter,
    project_id: adminOnly(textFilter),
    user_id: adminOnly(textFilter),
    snapshot_id: adminOnly(textFilter),
    container: adminOnly(textFilter),
  },
  sortKeys: [
    'id',
    'display_name',
    'status',
    'size',
    'container',
    'volume_id',
    'created_at',
    'updated_at',
    'data_timestamp',
  ],
  sortKeysSince: { name: '3.37' },
})

const nullableText = z.string().nullable()

const BackupSummary = z.object({ id: z.string(), name: nullableText, links: z.array(Link) })

const BackupDetail = BackupSummary.extend({
  status: z.string(),
  size: z.int(),
  object_count: z.int(),
  availability_zone: nullableText,
  container: nullableText,
  created_at: z.string(),
  updated_at: nullableText,
  description: nullableText,
  fail_reason: nullableText,
  volume_id: z.string(),
  is_incremental: z.boolean(),
  has_dependent_backups: z.boolean(),
  snapshot_id: nullableText,
  data_timestamp: z.string(),
  'os-backup-project-attr:project_id': since('3.18', adminOnly(z.string())),
  metadata: since('3.43', z.record(z.string(), z.string())),
  user_id: since('3.56', adminOnly(z.string())),
  encryption_key_id: since('3.64', z.string().optional()),
})

const BackupCreateBody = z.strictObject({
  backup: z.strictObject({
    volume_id: guid,
    container: text(255).nullish(),
    name: name.optional(),
    description: description.optional(),
    incremental: flag.optional(),
    force: flag.optional(),
    snapshot_id: optionalGuid,
    metadata: since('3.43', metadata.nullish()),
    availability_zone: since('3.51', text(255).nullish()),
  }),
})

const BackupUpdateBody = z.strictObject({
  backup: z.strictObject({
    name: name.optional(),
    description: description.optional(),
    metadata: since('3.43', metadata.optional()),
  }),
})

const Record = z.strictObject({ backup_service: text(255).min(1), backup_url: text(4096).min(1) })

export const backupRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: '/backups',
    operation: 'create_backup',
    summary: 'Back up a volume or a snapshot',
    policy: 'backup:create',
    body: BackupCreateBody,
    response: z.object({ backup: BackupSummary }),
    status: 202,
    handler: async ({ services, context, body: { backup: request }, links }) => {
      const backup = await services.backups.create(context, {
        volumeId: request.volume_id,
        snapshotId: request.snapshot_id ?? null,
        name: request.name ?? null,
        description: request.description ?? null,
        container: request.container || null,
        availabilityZone: request.availability_zone || null,
        incremental: request.incremental ?? false,
        force: request.force ?? false,
        metadata: request.metadata ?? {},
      })
      return { backup: summary(backup, links) }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/backups',
    operation: 'list_backups',
    summary: 'List backups',
    policy: 'backup:get_all',
    query: BACKUPS.query,
    response: listResponse('backups', BackupSummary),
    handler: (request) => list(request, '/backups', summary),
  }),
  defineRoute({
    method: 'GET',
    url: '/backups/detail',
    operation: 'list_backups_detail',
    summary: 'List backups with details',
    policy: 'backup:get_all',
    query: BACKUPS.query,
    response: listResponse('backups', BackupDetail),
    handler: (request) => list(request, '/backups/detail', detail),
  }),
  defineRoute({
    method: 'GET',
    url: '/backups/:backup_id',
    operation: 'show_backup',
    summary: 'Show a backup',
    policy: 'backup:get',
    response: z.object({ backup: BackupDetail }),
    handler: async ({ services, context, params, links }) => ({
      backup: detail(await services.backups.get(context, params.backup_id), links),
    }),
  }),
  defineRoute({
    method: 'PUT',
    url: '/backups/:backup_id',
    operation: 'update_backup',
    summary: 'Change name, description or metadata of a backup',
    since: '3.9',
    policy: 'backup:update',
    body: BackupUpdateBody,
    response: z.object({ backup: BackupSummary }),
    handler: async ({ services, context, params, body: { backup: changes }, links }) => {
      const { name, description, metadata } = changes
      const backup = await services.backups.update(context, params.backup_id, {
        ...(name === undefined ? {} : { name }),
        ...(description === undefined ? {} : { description }),
        ...(metadata === undefined ? {} : { metadata }),
      })
      return { backup: summary(backup, links) }
    },
  }),
  defineRoute({
    method: 'DELETE',
    url: '/backups/:backup_id',
    operation: 'delete_backup',
    summary: 'Delete a backup',
    policy: 'backup:delete',
    status: 202,
    handler: ({ services, context, params }) => services.backups.delete(context, params.backup_id, { force: false }),
  }),
  defineRoute({
    method: 'POST',
    url: '/backups/:backup_id/restore',
    operation: 'restore_backup',
    summary: 'Restore a backup to a volume, or to a new one',
    policy: 'backup:restore',
    body: z.strictObject({
      restore: z.strictObject({ volume_id: optionalGuid, name: name.optional() }),
    }),
    response: z.object({
      restore: z.object({ backup_id: z.string(), volume_id: z.string(), volume_name: nullableText }),
    }),
    status: 202,
    handler: async ({ services, context, params, body: { restore } }) => {
      const to = { volumeId: restore.volume_id ?? null, name: restore.name ?? null }
      const { volumeId, volumeName } = await services.backups.restore(context, params.backup_id, to)
      return { restore: { backup_id: params.backup_id, volume_id: volumeId, volume_name: volumeName } }
    },
  }),
  defineRoute({
    method: 'POST',
    url: '/backups/:backup_id/action',
    action: 'os-reset_status',
    operation: 'reset_backup_status',
    summary: 'Write the status of a backup',
    policy: 'volume_extension:backup_admin_actions:reset_status',
    body: z.strictObject({
      status: statusOf('Backup', ['available', 'error'], repr(['available', 'error'])),
    }),
    status: 202,
    handler: ({ services, context, params, body: { status } }) =>
      services.backups.resetStatus(context, params.backup_id, status),
  }),
  defineRoute({
    method: 'POST',
    url: '/backups/:backup_id/action',
    action: 'os-force_delete',
    operation: 'force_delete_backup',
    summary: 'Delete a backup in any status',
    policy: 'volume_extension:backup_admin_actions:force_delete',
    body: z.unknown(),
    status: 202,
    handler: ({ services, context, params }) => services.backups.delete(context, params.backup_id, { force: true }),
  }),
  defineRoute({
    method: 'GET',
    url: '/backups/:backup_id/export_record',
    operation: 'export_backup_record',
    summary: 'What another cloud needs to know to take the backup over',
    policy: 'backup:export-import',
    response: z.object({ 'backup-record': z.object({ backup_service: z.string(), backup_url: z.string() }) }),
    handler: async ({ services, context, params }) => {
      const { service, url } = await services.backups.exportRecord(context, params.backup_id)
      return { 'backup-record': { backup_service: service, backup_url: url } }
    },
  }),
  defineRoute({
    method: 'POST',
    url: '/backups/import_record',
    operation: 'import_backup_record',
    summary: 'Take a backup over that lies on the target',
    policy: 'backup:backup-import',
    body: z.strictObject({ 'backup-record': Record }),
    response: z.object({ backup: BackupSummary }),
    status: 201,
    handler: async ({ services, context, body, links }) => {
      const { backup_service: service, backup_url: url } = body['backup-record']
      return { backup: summary(await services.backups.importRecord(context, { service, url }), links) }
    },
  }),
]

function list<T>(
  request: ApiRequest<unknown, z.output<typeof BACKUPS.query>, unknown>,
  path: string,
  view: (backup: Backup, links: Links) => T,
) {
  const { services, context } = request
  return answerList(request, {
    collection: 'backups',
    listing: BACKUPS,
    path,
    find: (query, options) => services.backups.list(context, query, options),
    view,
  })
}

function selfLinks(links: Links, path: string): z.input<typeof Link>[] {
  return [
    { rel: 'self', href: links.self(path) },
    { rel: 'bookmark', href: links.bookmark(path) },
  ]
}

function summary(backup: Backup, links: Links): z.input<typeof BackupSummary> {
  return { id: backup.id, name: backup.name, links: selfLinks(links, `/backups/${backup.id}`) }
}

function detail(backup: Backup, links: Links): z.input<typeof BackupDetail> {
  return {
    ...summary(backup, links),
    status: backup.status,
    size: backup.sizeGib,
    object_count: backup.objectCount,
    availability_zone: backup.availabilityZone,
    container: backup.container,
    created_at: backup.createdAt,
    updated_at: backup.updatedAt,
    description: backup.description,
    fail_reason: backup.failReason,
    volume_id: backup.volumeId,
    is_incremental: backup.isIncremental,
    has_dependent_backups: backup.hasDependentBackups,
    snapshot_id: backup.snapshotId,
    data_timestamp: backup.dataTimestamp,
    encryption_key_id: backup.encryptionKeyId ?? undefined,
    'os-backup-project-attr:project_id': backup.projectId,
    metadata: backup.metadata,
    user_id: backup.userId,
  }
}

import { z } from 'zod'
import { cafile } from './cafile.ts'

/** Where tokens are validated. */
export const KEYSTONE = z
  .strictObject({
    url: z
      .url({ protocol: /^https?$/ })
      .nullable()
      .default(null)
      .describe('Keystone of the cloud, `http://host:5000/v3`, for `auth: keystone`.'),
    username: z
      .string()
      .min(1)
      .default('cinder')
      .describe('The account that may validate tokens, of the role `service` or `admin`.'),
    password: z.string().min(1).nullable().default(null).meta({ isSecret: true }).describe('Its password.'),
    project: z.string().min(1).default('service').describe('Its project.'),
    user_domain: z.string().min(1).default('Default').describe('Name of its domain.'),
    project_domain: z.string().min(1).default('Default').describe("Name of its project's domain."),
    public_url: z
      .url({ protocol: /^https?$/ })
      .nullable()
      .default(null)
      .describe('Where clients get tokens, as a 401 says it, when not at `url`.'),
    service_roles: z
      .array(z.string().min(1))
      .default(['service'])
      .describe('Whoever sends an X-Service-Token with one of these roles is a service, such as Nova.'),
    cache_seconds: z
      .int()
      .min(0)
      .max(3600)
      .default(60)
      .describe('How long a valid token is not asked about again, and one that has been revoked may still be taken.'),
    timeout_seconds: z
      .int()
      .min(1)
      .max(120)
      .default(10)
      .describe('How long Keystone may stay silent before requests are answered with 503.'),
    cafile: cafile('its certificate'),
  })
  .prefault({})

/** Where volumes get images from. */
export const IMAGE_SERVICE = z
  .strictObject({
    url: z
      .url({ protocol: /^https?$/ })
      .nullable()
      .default(null)
      .describe(
        'Where volumes get images from and are uploaded to: OpenStack Glance, `http://host:9292`. It is called with the token of whoever asks. Without it, images are refused.',
      ),
    timeout_seconds: z
      .int()
      .min(1)
      .max(45)
      .default(30)
      .describe('How long it may stay silent before a transfer counts as broken off and is tried again.'),
    transfers: z
      .int()
      .min(1)
      .max(16)
      .default(4)
      .describe('Images that are downloaded at the same time, and as many that are uploaded; others wait.'),
    conversion_directory: z
      .string()
      .min(1)
      .nullable()
      .default(null)
      .describe(
        'Where images that are not raw lie while they are converted; by default `conversion` in the data directory. Created when absent; no two processes may share it.',
      ),
    conversion_gib: z
      .int()
      .min(1)
      .max(1_048_576)
      .default(64)
      .describe('How much of that directory images may fill; one that needs more is refused.'),
    cafile: cafile('its certificate'),
  })
  .prefault({})

/** Who keeps the keys of encrypted volumes. */
export const KEY_MANAGER = z
  .enum(['local', 'barbican'])
  .default('local')
  .describe(
    'Who keeps the keys of encrypted volumes: the database, sealed with `seal.key` of the data directory (`local`), or OpenStack Barbican, with the token of whoever asks.',
  )

export const BARBICAN = z
  .strictObject({
    url: z
      .url({ protocol: /^https?$/ })
      .nullable()
      .default(null)
      .describe('Where Barbican is, `http://host:9311`; by default where the catalog of `auth: keystone` says.'),
    timeout_seconds: z
      .int()
      .min(1)
      .max(45)
      .default(10)
      .describe('How long it may stay silent before a request that needs a key is answered with 503.'),
    cafile: cafile('its certificate'),
  })
  .prefault({})

/** Whose servers use the volumes. */
export const COMPUTE_SERVICE = z
  .strictObject({
    auth_url: z
      .url({ protocol: /^https?$/ })
      .nullable()
      .default(null)
      .describe(
        'Keystone of the cloud whose servers use the volumes, `http://host:5000/v3`: with it Nova is told when a volume in use has grown or got another image, and moves volumes in use to other backends. Without it, nobody does.',
      ),
    username: z
      .string()
      .min(1)
      .default('cinder')
      .describe(
        'The account that may tell Nova and move volumes with it: of the role `admin`, as Nova wants by default.',
      ),
    password: z.string().min(1).nullable().default(null).meta({ isSecret: true }).describe('Its password.'),
    project_name: z.string().min(1).default('service').describe('Its project.'),
    user_domain_name: z.string().min(1).default('Default').describe('Domain of the account.'),
    project_domain_name: z.string().min(1).default('Default').describe('Domain of its project.'),
    region_name: z.string().min(1).nullable().default(null).describe('Region whose Nova it is; by default any.'),
    interface: z
      .enum(['public', 'internal', 'admin'])
      .default('public')
      .describe('Which of the endpoints in the catalog.'),
    url: z
      .url({ protocol: /^https?$/ })
      .nullable()
      .default(null)
      .describe('Where Nova is, `http://host:8774/v2.1`, when not where the catalog says.'),
    timeout_seconds: z
      .int()
      .min(1)
      .max(45)
      .default(10)
      .describe('How long Keystone and Nova may stay silent before the call counts as failed and is repeated.'),
    swap_timeout_minutes: z
      .int()
      .min(1)
      .max(20_160) // a timer has 31 bits of milliseconds
      .default(1440)
      .describe(
        'How long Nova may take to move a volume in use to another backend. One that it has not moved by then stays where it is, and its migration has failed.',
      ),
    cafile: cafile('the certificates of Keystone and Nova'),
  })
  .prefault({})
  .refine(({ auth_url, password }) => auth_url === null || password !== null, {
    error: 'auth_url needs a password',
    path: ['password'],
  })

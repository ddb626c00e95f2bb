import { z } from 'zod'
import { address } from './address.ts'

/** A part of `host@backend#pool`. */
const hostPart = z.string().regex(/^[\w.:-]{1,64}$/, { error: 'expected letters, digits and _ . : -, at most 64' })

/** One entry of `backends`. */
export const BACKEND_SCHEMA = z.strictObject({
  name: hostPart.describe(
    'Middle of the `host` of its volumes, `host@name#pool`; must not change while there are any.',
  ),
  driver: z.enum(['sheepdog']).default('sheepdog').describe('What kind of store it is.'),
  data_dir: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Data directory of the store node, on this machine; by default the one of this process.'),
  store: address
    .nullable()
    .default(null)
    .describe('Where the node speaks the Sheepdog protocol; by default the socket in its data directory.'),
  control: address
    .nullable()
    .default(null)
    .describe('Control socket of the node; by default the one in its data directory.'),
  nbd: address
    .nullable()
    .default(null)
    .describe('Where clients reach the NBD gateway of the store; by default what the node says.'),
  pool: hostPart.nullable().default(null).describe('Name of its pool; by default that of the backend.'),
  availability_zone: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Zone of its volumes; by default the setting `availability_zone`.'),
  volume_backend_name: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Name by which volume types ask for it; by default that of the backend. Several may share one.'),
  reserved_percentage: z
    .int()
    .min(0)
    .max(100)
    .default(0)
    .describe('Part of the capacity that volumes are not placed in.'),
  max_over_subscription_ratio: z
    .number()
    .min(1)
    .max(1000)
    .default(20)
    .describe('How many times its capacity thin volumes may promise.'),
  thin: z.boolean().default(true).describe('False promises no more than the capacity.'),
  timeout_seconds: z
    .int()
    .min(1)
    .max(55)
    .default(30)
    .describe('How long a call may take before it counts as failed and is repeated.'),
  faults: z
    .array(z.string().min(1))
    .default([])
    .describe('Faults to rehearse with, such as `error(before 2nd of createVolume)`: see ARCHITECTURE.'),
})

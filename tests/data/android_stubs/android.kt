// The part of Android that examples/android uses, to compile against.

package android.app

import android.content.Context
import android.os.Bundle
import android.view.View

open class Activity : Context() {
    protected open fun onCreate(savedInstanceState: Bundle?): Unit = TODO()

    protected open fun onDestroy(): Unit = TODO()

    fun setContentView(view: View): Unit = TODO()

    fun runOnUiThread(action: () -> Unit): Unit = TODO()
}
